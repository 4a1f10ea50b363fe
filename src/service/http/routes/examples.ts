// /fine_tuning/jobs/{id}/examples: what training says of its rows, and a file without some of them.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Examples } from '../../jobs/examples.ts'
import { cutPage, presentPage } from '../pagination.ts'
import {
  DeriveFileRequest,
  ExampleReply,
  ExamplesQuery,
  presentExample,
} from '../schemas/examples.ts'
import { presentFile } from '../schemas/files.ts'
import { JobParams, listOf } from '../schemas/fine-tuning.ts'

export interface ExampleDeps {
  readonly examples: Examples
}

const tags = ['Fine-tuning']
const EXAMPLES = '/fine_tuning/jobs/:fine_tuning_job_id/examples'
const DEFAULT_LIMIT = 20

export const exampleRoutes: FastifyPluginAsyncTypebox<ExampleDeps> = async (app, { examples }) => {
  app.addSchema(ExampleReply)

  app.get(
    EXAMPLES,
    {
      schema: {
        operationId: 'listFineTuningJobExamples',
        summary: 'Lists the training rows of a job, those that deserve a look first.',
        tags,
        params: JobParams,
        querystring: ExamplesQuery,
        response: { 200: listOf('FineTuningJobExample#') },
      },
    },
    async ({ caller, params, query }) => {
      const { order = 'likely_wrong_label', after, limit = DEFAULT_LIMIT } = query
      const id = params.fine_tuning_job_id
      const found = await examples.list(caller.project_id, id, { order, after, limit })
      return presentPage(cutPage(found.map(presentExample), limit))
    },
  )

  app.post(
    `${EXAMPLES}/derive`,
    {
      schema: {
        operationId: 'deriveFineTuningFile',
        summary: 'Makes a file of the training rows without some of them.',
        tags,
        params: JobParams,
        body: DeriveFileRequest,
        response: { 200: Type.Ref('File#') },
      },
    },
    async ({ caller, params, body }) =>
      presentFile(await examples.derive(caller.project_id, params.fine_tuning_job_id, body)),
  )
}
