// /fine_tuning/alpha/preflight: a job's files judged before there is a job; and what was found out for one.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { notFound } from '../../../errors.ts'
import type { Jobs } from '../../jobs/jobs.ts'
import type { Preflights } from '../../scheduler/preflights.ts'
import { clientGone } from '../answer.ts'
import { JobParams } from '../schemas/fine-tuning.ts'
import { PreflightReply, PreflightRequest } from '../schemas/preflight.ts'

export interface PreflightRoutesDeps {
  readonly preflights: Preflights
  readonly jobs: Jobs
}

const tags = ['Fine-tuning']

export const preflightRoutes: FastifyPluginAsyncTypebox<PreflightRoutesDeps> = async (
  app,
  { preflights, jobs },
) => {
  app.addSchema(PreflightReply)

  app.post(
    '/fine_tuning/alpha/preflight',
    {
      schema: {
        operationId: 'preflightFineTuningJob',
        summary: 'Judges the files of a job without creating it.',
        tags,
        body: PreflightRequest,
        response: { 200: Type.Ref('FineTuningPreflight#') },
      },
    },
    async ({ caller, body }, reply) => preflights.run(caller.project_id, body, clientGone(reply)),
  )

  app.get(
    '/fine_tuning/jobs/:fine_tuning_job_id/preflight',
    {
      schema: {
        operationId: 'retrieveFineTuningPreflight',
        summary: 'Retrieves what was found out about the files of a job while they were validated.',
        tags,
        params: JobParams,
        response: { 200: Type.Ref('FineTuningPreflight#') },
      },
    },
    async ({ caller, params }) => {
      const { preflight } = await jobs.retrieve(caller.project_id, params.fine_tuning_job_id)
      if (!preflight)
        throw notFound('The files of the job have not been validated.', {
          param: 'fine_tuning_job_id',
        })
      return preflight
    },
  )
}
