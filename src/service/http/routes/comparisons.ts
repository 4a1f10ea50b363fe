// /evals/{eval_id}/comparisons: several runs beside each other; those that are missing are started.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Comparisons } from '../../evals/comparisons.ts'
import { cutPage, presentPage } from '../pagination.ts'
import {
  ComparisonParams,
  ComparisonReply,
  CreateComparisonRequest,
  ListComparisonsQuery,
  presentComparison,
} from '../schemas/comparisons.ts'
import { EvalParams } from '../schemas/evals.ts'
import { listOf } from '../schemas/fine-tuning.ts'

export interface ComparisonDeps {
  readonly comparisons: Comparisons
}

const tags = ['Evals']
const COMPARISONS = '/evals/:eval_id/comparisons'
const DEFAULT_LIMIT = 20

export const comparisonRoutes: FastifyPluginAsyncTypebox<ComparisonDeps> = async (
  app,
  { comparisons },
) => {
  app.addSchema(ComparisonReply)

  app.post(
    COMPARISONS,
    {
      schema: {
        operationId: 'createEvalComparison',
        summary: 'Compares runs of an eval, and starts those that are missing.',
        tags,
        params: EvalParams,
        body: CreateComparisonRequest,
        response: { 201: Type.Ref('EvalComparison#') },
      },
    },
    async ({ caller, params, body }, reply) => {
      const created = await comparisons.create(caller.project_id, params.eval_id, body)
      return reply.code(201).send(presentComparison(created))
    },
  )

  app.get(
    COMPARISONS,
    {
      schema: {
        operationId: 'listEvalComparisons',
        summary: 'Lists the comparisons of an eval.',
        tags,
        params: EvalParams,
        querystring: ListComparisonsQuery,
        response: { 200: listOf('EvalComparison#') },
      },
    },
    async ({ caller, params: { eval_id }, query }) => {
      const { after, limit = DEFAULT_LIMIT, order = 'asc' } = query
      const found = await comparisons.list(caller.project_id, { eval_id, after, limit, order })
      return presentPage(cutPage(found.map(presentComparison), limit))
    },
  )

  app.get(
    `${COMPARISONS}/:comparison_id`,
    {
      schema: {
        operationId: 'getEvalComparison',
        summary: 'Retrieves a comparison, with its figures once all runs have ended.',
        tags,
        params: ComparisonParams,
        response: { 200: Type.Ref('EvalComparison#') },
      },
    },
    async ({ caller, params: { eval_id, comparison_id } }) =>
      presentComparison(await comparisons.retrieve(caller.project_id, eval_id, comparison_id)),
  )
}
