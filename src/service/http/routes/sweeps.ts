// /fine_tuning/alpha/sweeps: create, look, cancel.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Sweeps } from '../../sweeps/sweeps.ts'
import { cursorQuery, cutPage, presentPage } from '../pagination.ts'
import { listOf, presentEvent } from '../schemas/fine-tuning.ts'
import { CreateSweepRequest, presentSweep, SweepParams, SweepReply } from '../schemas/sweeps.ts'

export interface SweepDeps {
  readonly sweeps: Sweeps
}

const tags = ['Sweeps']
const SWEEPS = '/fine_tuning/alpha/sweeps'
const SWEEP = `${SWEEPS}/:sweep_id`
const DEFAULT_LIMIT = 20
const MAX_LIMIT = 100

export const sweepRoutes: FastifyPluginAsyncTypebox<SweepDeps> = async (app, { sweeps }) => {
  app.addSchema(SweepReply)
  const response = { 200: Type.Ref('FineTuningSweep#') }

  app.post(
    SWEEPS,
    {
      schema: {
        operationId: 'createFineTuningSweep',
        summary: 'Creates a sweep: jobs of other hyperparameters, of which the better ones go on.',
        tags,
        body: CreateSweepRequest,
        response,
      },
    },
    async ({ caller, body }) => presentSweep(await sweeps.create(caller, body)),
  )

  app.get(
    SWEEPS,
    {
      schema: {
        operationId: 'listFineTuningSweeps',
        summary: 'Lists the sweeps of the project, newest first.',
        tags,
        querystring: cursorQuery({ default: DEFAULT_LIMIT, maximum: MAX_LIMIT }),
        response: { 200: listOf('FineTuningSweep#') },
      },
    },
    async ({ caller, query: { after, limit = DEFAULT_LIMIT } }) => {
      const found = await sweeps.list(caller.project_id, { after, limit })
      return presentPage(cutPage(found.map(presentSweep), limit))
    },
  )

  app.get(
    SWEEP,
    {
      schema: {
        operationId: 'retrieveFineTuningSweep',
        summary: 'Retrieves a sweep with the table of its trials.',
        tags,
        params: SweepParams,
        response,
      },
    },
    async ({ caller, params }) =>
      presentSweep(await sweeps.retrieve(caller.project_id, params.sweep_id)),
  )

  app.post(
    `${SWEEP}/cancel`,
    {
      schema: {
        operationId: 'cancelFineTuningSweep',
        summary: 'Cancels a sweep that has not ended, and its jobs.',
        tags,
        params: SweepParams,
        response,
      },
    },
    async ({ caller, params }) =>
      presentSweep(await sweeps.cancel(caller.project_id, params.sweep_id)),
  )

  app.get(
    `${SWEEP}/events`,
    {
      schema: {
        operationId: 'listFineTuningSweepEvents',
        summary: 'Lists what happened to a sweep, newest first.',
        tags,
        params: SweepParams,
        querystring: cursorQuery({ default: DEFAULT_LIMIT, maximum: MAX_LIMIT }),
        response: { 200: listOf('FineTuningJobEvent#') },
      },
    },
    async ({ caller, params, query: { after, limit = DEFAULT_LIMIT } }) => {
      const found = await sweeps.events(caller.project_id, params.sweep_id, { after, limit })
      return presentPage(cutPage(found.map(presentEvent), limit))
    },
  )
}
