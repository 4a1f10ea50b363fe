// /batches: create, look, cancel.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Batches } from '../../batches/batches.ts'
import { cursorQuery, cutPage, presentPage } from '../pagination.ts'
import {
  BatchParams,
  BatchReply,
  CreateBatchRequest,
  presentBatch,
  toCreateBatch,
} from '../schemas/batches.ts'
import { listOf } from '../schemas/fine-tuning.ts'

export interface BatchDeps {
  readonly batches: Batches
}

const tags = ['Batches']
const DEFAULT_LIMIT = 20
const MAX_LIMIT = 100

export const batchRoutes: FastifyPluginAsyncTypebox<BatchDeps> = async (app, { batches }) => {
  app.addSchema(BatchReply)
  const response = { 200: Type.Ref('Batch#') }

  app.post(
    '/batches',
    {
      schema: {
        operationId: 'createBatch',
        summary: 'Creates a batch: a file of requests that are answered when there is time.',
        tags,
        body: CreateBatchRequest,
        response,
      },
    },
    async ({ caller, body }) =>
      presentBatch(await batches.create(caller.project_id, toCreateBatch(body))),
  )

  app.get(
    '/batches',
    {
      schema: {
        operationId: 'listBatches',
        summary: 'Lists the batches of the project, newest first.',
        tags,
        querystring: cursorQuery({ default: DEFAULT_LIMIT, maximum: MAX_LIMIT }),
        response: { 200: listOf('Batch#') },
      },
    },
    async ({ caller, query: { after, limit = DEFAULT_LIMIT } }) => {
      const found = await batches.list(caller.project_id, { after, limit })
      return presentPage(cutPage(found.map(presentBatch), limit))
    },
  )

  app.get(
    '/batches/:batch_id',
    {
      schema: {
        operationId: 'retrieveBatch',
        summary: 'Retrieves a batch, and how far it has come.',
        tags,
        params: BatchParams,
        response,
      },
    },
    async ({ caller, params }) =>
      presentBatch(await batches.retrieve(caller.project_id, params.batch_id)),
  )

  app.post(
    '/batches/:batch_id/cancel',
    {
      schema: {
        operationId: 'cancelBatch',
        summary: 'Cancels a batch; what has been answered by then comes into its files.',
        tags,
        params: BatchParams,
        response,
      },
    },
    async ({ caller, params }) =>
      presentBatch(await batches.cancel(caller.project_id, params.batch_id)),
  )
}
