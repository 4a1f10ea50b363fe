// /fine_tuning/alpha/merges: create, look, cancel.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Merges } from '../../merges/merges.ts'
import { cursorQuery, cutPage, presentPage } from '../pagination.ts'
import { listOf, presentEvent } from '../schemas/fine-tuning.ts'
import { CreateMergeRequest, MergeParams, MergeReply, presentMerge } from '../schemas/merges.ts'

export interface MergeDeps {
  readonly merges: Merges
}

const tags = ['Merges']
const MERGES = '/fine_tuning/alpha/merges'
const MERGE = `${MERGES}/:merge_id`
const YAML = ['application/yaml', 'application/x-yaml', 'text/yaml', 'text/x-yaml']
const DEFAULT_LIMIT = 20
const MAX_LIMIT = 100

export const mergeRoutes: FastifyPluginAsyncTypebox<MergeDeps> = async (app, { merges }) => {
  app.addSchema(MergeReply)
  const response = { 200: Type.Ref('FineTuningMerge#') }
  // A YAML as it stands.
  app.addContentTypeParser<string>(YAML, { parseAs: 'string' }, (_, body, done) =>
    done(null, { config: body }),
  )

  app.post(
    MERGES,
    {
      schema: {
        operationId: 'createFineTuningMerge',
        summary: 'Creates a merge: one model made of several.',
        tags,
        body: CreateMergeRequest,
        response,
      },
    },
    async ({ caller, body }) => presentMerge(await merges.create(caller, body)),
  )

  app.get(
    MERGES,
    {
      schema: {
        operationId: 'listFineTuningMerges',
        summary: 'Lists the merges of the project, newest first.',
        tags,
        querystring: cursorQuery({ default: DEFAULT_LIMIT, maximum: MAX_LIMIT }),
        response: { 200: listOf('FineTuningMerge#') },
      },
    },
    async ({ caller, query: { after, limit = DEFAULT_LIMIT } }) => {
      const found = await merges.list(caller.project_id, { after, limit })
      return presentPage(cutPage(found.map(presentMerge), limit))
    },
  )

  app.get(
    MERGE,
    {
      schema: {
        operationId: 'retrieveFineTuningMerge',
        summary: 'Retrieves a merge, and how far it has come.',
        tags,
        params: MergeParams,
        response,
      },
    },
    async ({ caller, params }) =>
      presentMerge(await merges.retrieve(caller.project_id, params.merge_id)),
  )

  app.post(
    `${MERGE}/cancel`,
    {
      schema: {
        operationId: 'cancelFineTuningMerge',
        summary: 'Cancels a merge that has not ended.',
        tags,
        params: MergeParams,
        response,
      },
    },
    async ({ caller, params }) =>
      presentMerge(await merges.cancel(caller.project_id, params.merge_id)),
  )

  app.get(
    `${MERGE}/events`,
    {
      schema: {
        operationId: 'listFineTuningMergeEvents',
        summary: 'Lists what happened to a merge, newest first.',
        tags,
        params: MergeParams,
        querystring: cursorQuery({ default: DEFAULT_LIMIT, maximum: MAX_LIMIT }),
        response: { 200: listOf('FineTuningJobEvent#') },
      },
    },
    async ({ caller, params, query: { after, limit = DEFAULT_LIMIT } }) => {
      const found = await merges.events(caller.project_id, params.merge_id, { after, limit })
      return presentPage(cutPage(found.map(presentEvent), limit))
    },
  )
}
