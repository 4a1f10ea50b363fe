// /fine_tuning/jobs: create, look, cancel, pause, resume.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Pool } from '../../db/pool.ts'
import type { Jobs } from '../../jobs/jobs.ts'
import { IdempotencyHeaders, idempotent } from '../idempotency.ts'
import { cursorQuery, cutPage, presentPage } from '../pagination.ts'
import {
  CreateFineTuningJobRequest,
  FineTuningJobCheckpointReply,
  FineTuningJobEventReply,
  FineTuningJobReply,
  JobParams,
  ListJobsQuery,
  listOf,
  presentCheckpoint,
  presentEvent,
  presentJob,
  readMetadataFilter,
} from '../schemas/fine-tuning.ts'

export interface FineTuningDeps {
  readonly jobs: Jobs
  readonly db: Pool
}

const tags = ['Fine-tuning']
const JOBS = '/fine_tuning/jobs'
const JOB = `${JOBS}/:fine_tuning_job_id`
const DEFAULT_LIMIT = 20
const DEFAULT_CHECKPOINTS = 10
const MAX_LIMIT = 100
/** All that one job tells fits into a page. */
const MAX_EVENTS = 1000

export const fineTuningRoutes: FastifyPluginAsyncTypebox<FineTuningDeps> = async (
  app,
  { jobs, db },
) => {
  app.addSchema(FineTuningJobReply)
  app.addSchema(FineTuningJobEventReply)
  app.addSchema(FineTuningJobCheckpointReply)

  app.post(
    JOBS,
    {
      schema: {
        operationId: 'createFineTuningJob',
        summary: 'Creates a job that tunes a model on an uploaded file.',
        tags,
        headers: IdempotencyHeaders,
        body: CreateFineTuningJobRequest,
        response: { 200: Type.Ref('FineTuningJob#') },
      },
    },
    async (request) => {
      const { caller, body } = request
      return idempotent(db, request, (commit) => jobs.create(caller, body, commit), presentJob)
    },
  )

  app.get(
    JOBS,
    {
      schema: {
        operationId: 'listFineTuningJobs',
        summary: 'Lists the jobs of the project, newest first.',
        tags,
        querystring: ListJobsQuery,
        response: { 200: listOf('FineTuningJob#') },
      },
    },
    async ({ caller, query }) => {
      const { after, limit = DEFAULT_LIMIT } = query
      const metadata = readMetadataFilter(query)
      const found = await jobs.list(caller.project_id, { after, limit, metadata })
      return presentPage(cutPage(found.map(presentJob), limit))
    },
  )

  app.get(
    JOB,
    {
      schema: {
        operationId: 'retrieveFineTuningJob',
        summary: 'Retrieves a job.',
        tags,
        params: JobParams,
        response: { 200: Type.Ref('FineTuningJob#') },
      },
    },
    async ({ caller, params }) =>
      presentJob(await jobs.retrieve(caller.project_id, params.fine_tuning_job_id)),
  )

  app.post(
    `${JOB}/cancel`,
    {
      schema: {
        operationId: 'cancelFineTuningJob',
        summary: 'Cancels a job that has not ended.',
        tags,
        params: JobParams,
        response: { 200: Type.Ref('FineTuningJob#') },
      },
    },
    async ({ caller, params }) =>
      presentJob(await jobs.cancel(caller.project_id, params.fine_tuning_job_id)),
  )

  app.post(
    `${JOB}/pause`,
    {
      schema: {
        operationId: 'pauseFineTuningJob',
        summary: 'Pauses a running job and keeps a checkpoint of it.',
        tags,
        params: JobParams,
        response: { 200: Type.Ref('FineTuningJob#') },
      },
    },
    async ({ caller, params }) =>
      presentJob(await jobs.pause(caller.project_id, params.fine_tuning_job_id)),
  )

  app.post(
    `${JOB}/resume`,
    {
      schema: {
        operationId: 'resumeFineTuningJob',
        summary: 'Puts a paused job in line again; it goes on where it was.',
        tags,
        params: JobParams,
        response: { 200: Type.Ref('FineTuningJob#') },
      },
    },
    async ({ caller, params }) =>
      presentJob(await jobs.resume(caller.project_id, params.fine_tuning_job_id)),
  )

  app.get(
    `${JOB}/events`,
    {
      schema: {
        operationId: 'listFineTuningEvents',
        summary: 'Lists what happened to a job, newest first.',
        tags,
        params: JobParams,
        querystring: cursorQuery({ default: DEFAULT_LIMIT, maximum: MAX_EVENTS }),
        response: { 200: listOf('FineTuningJobEvent#') },
      },
    },
    async ({ caller, params, query }) => {
      const { after, limit = DEFAULT_LIMIT } = query
      const id = params.fine_tuning_job_id
      const found = await jobs.events(caller.project_id, id, { after, limit })
      return presentPage(cutPage(found.map(presentEvent), limit))
    },
  )

  app.get(
    `${JOB}/checkpoints`,
    {
      schema: {
        operationId: 'listFineTuningJobCheckpoints',
        summary: 'Lists the saved points of a job, newest first.',
        tags,
        params: JobParams,
        querystring: cursorQuery({ default: DEFAULT_CHECKPOINTS, maximum: MAX_LIMIT }),
        response: { 200: listOf('FineTuningJobCheckpoint#') },
      },
    },
    async ({ caller, params, query }) => {
      const { after, limit = DEFAULT_CHECKPOINTS } = query
      const id = params.fine_tuning_job_id
      const found = await jobs.checkpoints(caller.project_id, id, { after, limit })
      return presentPage(cutPage(found.map(presentCheckpoint), limit))
    },
  )
}
