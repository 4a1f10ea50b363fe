// /evals: create, look, change, delete; their runs, and what each row of a run came to.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Evals } from '../../evals/evals.ts'
import type { Runs } from '../../evals/runs.ts'
import { cutPage, presentPage } from '../pagination.ts'
import {
  CreateEvalRequest,
  CreateEvalRunRequest,
  DeletedEval,
  DeletedEvalRun,
  EvalParams,
  EvalReply,
  EvalRunReply,
  ItemParams,
  ListEvalsQuery,
  ListItemsQuery,
  ListRunsQuery,
  OutputItemReply,
  presentEval,
  presentItem,
  presentRun,
  RunParams,
  UpdateEvalRequest,
} from '../schemas/evals.ts'
import { listOf } from '../schemas/fine-tuning.ts'

export interface EvalsDeps {
  readonly evals: Evals
  readonly runs: Runs
}

const tags = ['Evals']
const EVAL = '/evals/:eval_id'
const RUN = `${EVAL}/runs/:run_id`
const DEFAULT_LIMIT = 20

/** Where the client reached this server. */
export const baseOf = ({ protocol, host }: FastifyRequest) => `${protocol}://${host}`

export const evalRoutes: FastifyPluginAsyncTypebox<EvalsDeps> = async (app, { evals, runs }) => {
  app.addSchema(EvalReply)
  app.addSchema(EvalRunReply)
  app.addSchema(OutputItemReply)

  app.post(
    '/evals',
    {
      schema: {
        operationId: 'createEval',
        summary: 'Creates an eval: what a row looks like, and how a sample of it is graded.',
        tags,
        body: CreateEvalRequest,
        response: { 201: Type.Ref('Eval#') },
      },
    },
    async ({ caller, body }, reply) => {
      const one = await evals.create(caller.project_id, body)
      return reply.code(201).send(presentEval(one))
    },
  )

  app.get(
    '/evals',
    {
      schema: {
        operationId: 'listEvals',
        summary: 'Lists the evals of the project.',
        tags,
        querystring: ListEvalsQuery,
        response: { 200: listOf('Eval#') },
      },
    },
    async ({ caller, query }) => {
      const { after, limit = DEFAULT_LIMIT, order = 'asc', order_by = 'created_at' } = query
      const found = await evals.list(caller.project_id, { after, limit, order, order_by })
      return presentPage(cutPage(found.map(presentEval), limit))
    },
  )

  app.get(
    EVAL,
    {
      schema: {
        operationId: 'getEval',
        summary: 'Retrieves an eval.',
        tags,
        params: EvalParams,
        response: { 200: Type.Ref('Eval#') },
      },
    },
    async ({ caller, params }) =>
      presentEval(await evals.retrieve(caller.project_id, params.eval_id)),
  )

  app.post(
    EVAL,
    {
      schema: {
        operationId: 'updateEval',
        summary: 'Changes the name or the metadata of an eval.',
        tags,
        params: EvalParams,
        body: UpdateEvalRequest,
        response: { 200: Type.Ref('Eval#') },
      },
    },
    async ({ caller, params, body }) =>
      presentEval(await evals.update(caller.project_id, params.eval_id, body)),
  )

  app.delete(
    EVAL,
    {
      schema: {
        operationId: 'deleteEval',
        summary: 'Deletes an eval with its runs.',
        tags,
        params: EvalParams,
        response: { 200: DeletedEval },
      },
    },
    async ({ caller, params: { eval_id } }) => {
      await evals.delete(caller.project_id, eval_id)
      return { object: 'eval.deleted' as const, deleted: true as const, eval_id }
    },
  )

  app.post(
    `${EVAL}/runs`,
    {
      schema: {
        operationId: 'createEvalRun',
        summary: 'Runs an eval over rows: samples that they bring, or that a model gives.',
        tags,
        params: EvalParams,
        body: CreateEvalRunRequest,
        response: { 201: Type.Ref('EvalRun#') },
      },
    },
    async (request, reply) => {
      const { caller, params, body } = request
      const run = await runs.create(caller.project_id, params.eval_id, body)
      return reply.code(201).send(presentRun(run, baseOf(request)))
    },
  )

  app.get(
    `${EVAL}/runs`,
    {
      schema: {
        operationId: 'getEvalRuns',
        summary: 'Lists the runs of an eval.',
        tags,
        params: EvalParams,
        querystring: ListRunsQuery,
        response: { 200: listOf('EvalRun#') },
      },
    },
    async (request) => {
      const { caller, params, query } = request
      const { after, limit = DEFAULT_LIMIT, order = 'asc', status } = query
      const { eval_id } = params
      const found = await runs.list(caller.project_id, { eval_id, after, limit, order, status })
      const shown = found.map((run) => presentRun(run, baseOf(request)))
      return presentPage(cutPage(shown, limit))
    },
  )

  app.get(
    RUN,
    {
      schema: {
        operationId: 'getEvalRun',
        summary: 'Retrieves a run, with its counts so far.',
        tags,
        params: RunParams,
        response: { 200: Type.Ref('EvalRun#') },
      },
    },
    async (request) => {
      const { caller, params } = request
      const run = await runs.retrieve(caller.project_id, params.eval_id, params.run_id)
      return presentRun(run, baseOf(request))
    },
  )

  // OpenAI describes the first, which its npm client 6 sends; the newer ones and Python's send the second.
  for (const [url, operationId] of [
    [RUN, 'cancelEvalRun'],
    [`${RUN}/cancel`, 'cancelEvalRunByName'],
  ] as const)
    app.post(
      url,
      {
        schema: {
          operationId,
          summary: 'Cancels a run that has not ended.',
          tags,
          params: RunParams,
          response: { 200: Type.Ref('EvalRun#') },
        },
      },
      async (request) => {
        const { caller, params } = request
        const run = await runs.cancel(caller.project_id, params.eval_id, params.run_id)
        return presentRun(run, baseOf(request))
      },
    )

  app.delete(
    RUN,
    {
      schema: {
        operationId: 'deleteEvalRun',
        summary: 'Deletes a run with all that it found.',
        tags,
        params: RunParams,
        response: { 200: DeletedEvalRun },
      },
    },
    async ({ caller, params: { eval_id, run_id } }) => {
      await runs.delete(caller.project_id, eval_id, run_id)
      return { object: 'eval.run.deleted' as const, deleted: true as const, run_id }
    },
  )

  app.get(
    `${RUN}/output_items`,
    {
      schema: {
        operationId: 'getEvalRunOutputItems',
        summary: 'Lists what each row of a run came to, in the order of the rows.',
        tags,
        params: RunParams,
        querystring: ListItemsQuery,
        response: { 200: listOf('EvalRunOutputItem#') },
      },
    },
    async ({ caller, params, query }) => {
      const { after, limit = DEFAULT_LIMIT, order = 'asc', status } = query
      const which = { run_id: params.run_id, after, limit, order, status }
      const { run, items } = await runs.items(caller.project_id, params.eval_id, which)
      return presentPage(
        cutPage(
          items.map((item) => presentItem(run, item)),
          limit,
        ),
      )
    },
  )

  app.get(
    `${RUN}/output_items/:output_item_id`,
    {
      schema: {
        operationId: 'getEvalRunOutputItem',
        summary: 'Retrieves what one row of a run came to.',
        tags,
        params: ItemParams,
        response: { 200: Type.Ref('EvalRunOutputItem#') },
      },
    },
    async ({ caller, params }) => {
      const which = { run_id: params.run_id, id: params.output_item_id }
      const { run, item } = await runs.item(caller.project_id, params.eval_id, which)
      return presentItem(run, item)
    },
  )
}
