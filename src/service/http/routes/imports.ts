// /fine_tuning/alpha/imports: create, look, cancel.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Imports } from '../../imports/imports.ts'
import { cursorQuery, cutPage, presentPage } from '../pagination.ts'
import { listOf, presentEvent } from '../schemas/fine-tuning.ts'
import {
  CreateImportRequest,
  ImportParams,
  ImportReply,
  presentImport,
} from '../schemas/imports.ts'

export interface ImportDeps {
  readonly imports: Imports
}

const tags = ['Imports']
const IMPORTS = '/fine_tuning/alpha/imports'
const IMPORT = `${IMPORTS}/:import_id`
const DEFAULT_LIMIT = 20
const MAX_LIMIT = 100

export const importRoutes: FastifyPluginAsyncTypebox<ImportDeps> = async (app, { imports }) => {
  app.addSchema(ImportReply)
  const response = { 200: Type.Ref('FineTuningImport#') }
  app.post(
    IMPORTS,
    {
      schema: {
        operationId: 'createFineTuningImport',
        summary: 'Creates an import: uploaded files become a model.',
        tags,
        body: CreateImportRequest,
        response,
      },
    },
    async ({ caller, body }) => presentImport(await imports.create(caller, body)),
  )

  app.get(
    IMPORTS,
    {
      schema: {
        operationId: 'listFineTuningImports',
        summary: 'Lists the imports of the project, newest first.',
        tags,
        querystring: cursorQuery({ default: DEFAULT_LIMIT, maximum: MAX_LIMIT }),
        response: { 200: listOf('FineTuningImport#') },
      },
    },
    async ({ caller, query: { after, limit = DEFAULT_LIMIT } }) => {
      const found = await imports.list(caller.project_id, { after, limit })
      return presentPage(cutPage(found.map(presentImport), limit))
    },
  )

  app.get(
    IMPORT,
    {
      schema: {
        operationId: 'retrieveFineTuningImport',
        summary: 'Retrieves an import, and how far it has come.',
        tags,
        params: ImportParams,
        response,
      },
    },
    async ({ caller, params }) =>
      presentImport(await imports.retrieve(caller.project_id, params.import_id)),
  )

  app.post(
    `${IMPORT}/cancel`,
    {
      schema: {
        operationId: 'cancelFineTuningImport',
        summary: 'Cancels an import that has not ended.',
        tags,
        params: ImportParams,
        response,
      },
    },
    async ({ caller, params }) =>
      presentImport(await imports.cancel(caller.project_id, params.import_id)),
  )

  app.get(
    `${IMPORT}/events`,
    {
      schema: {
        operationId: 'listFineTuningImportEvents',
        summary: 'Lists what happened to an import, newest first.',
        tags,
        params: ImportParams,
        querystring: cursorQuery({ default: DEFAULT_LIMIT, maximum: MAX_LIMIT }),
        response: { 200: listOf('FineTuningJobEvent#') },
      },
    },
    async ({ caller, params, query: { after, limit = DEFAULT_LIMIT } }) => {
      const found = await imports.events(caller.project_id, params.import_id, { after, limit })
      return presentPage(cutPage(found.map(presentEvent), limit))
    },
  )
}
