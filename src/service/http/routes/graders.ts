// /fine_tuning/alpha/graders: run one over a sample, or have it checked.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Graders } from '../../scheduler/graders.ts'
import { clientGone } from '../answer.ts'
import type { RateLimits } from '../rate-limits.ts'
import {
  presentGraderRun,
  RunGraderRequest,
  RunGraderResponse,
  ValidateGraderRequest,
} from '../schemas/graders.ts'

export interface GraderDeps {
  readonly graders: Graders
  readonly limits: RateLimits
}

const tags = ['Graders']

export const graderRoutes: FastifyPluginAsyncTypebox<GraderDeps> = async (
  app,
  { graders, limits },
) => {
  app.post(
    '/fine_tuning/alpha/graders/run',
    {
      schema: {
        operationId: 'runGrader',
        summary: 'Grades one sample; a grade that cannot be given is a flag in the answer.',
        tags,
        body: RunGraderRequest,
        response: { 200: RunGraderResponse },
      },
    },
    async ({ caller, body }, reply) => {
      const { grader, item = {}, model_sample } = body
      const { headers, took } = limits.take(caller.key_id, 0, Date.now())
      reply.headers(headers)
      const request = { grader, item, model_sample }
      const run = await graders.run(caller.project_id, request, clientGone(reply))
      limits.settle(caller.key_id, { took, used: run.tokens }, Date.now())
      return presentGraderRun(grader, run)
    },
  )

  app.post(
    '/fine_tuning/alpha/graders/validate',
    {
      schema: {
        operationId: 'validateGrader',
        summary: 'Checks a grader without running it.',
        tags,
        body: ValidateGraderRequest,
        response: { 200: ValidateGraderRequest },
      },
    },
    async ({ body: { grader } }) => {
      await graders.validate(grader)
      return { grader }
    },
  )
}
