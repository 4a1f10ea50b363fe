// What can be asked about fine-tuning jobs: create, look, cancel, pause, resume. Running them is the scheduler's.

import { randomInt } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { invalidRequest, notFound } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { badCursor, type Cursor } from '../cursor.ts'
import {
  type FineTuningCheckpoint,
  isCheckpointCursor,
  listCheckpoints,
} from '../db/fine-tuning-checkpoints.ts'
import {
  changeJob,
  type FineTuningJob,
  findJob,
  holdJob,
  insertJob,
  listJobs,
  type MetadataFilter,
} from '../db/fine-tuning-jobs.ts'
import { type Db, isForeignKeyViolation, transaction } from '../db/pool.ts'
import { insertWork, requestPause, resumeWork } from '../db/work.ts'
import type { WorkEvent } from '../db/work-events.ts'
import { newId, randomLetters } from '../ids.ts'
import { baseOfTunedName, tunedModelName } from '../models/names.ts'
import type { ModelRegistry } from '../models/registry.ts'
import type { Stores } from '../storage/objects.ts'
import { eventsOf, tell } from '../work/events.ts'
import { alreadyEnded, cancelJob } from './cancel.ts'
import { eventText } from './event-texts.ts'
import { hyperparametersOf } from './hyperparameters.ts'
import { type CreateJob, resolveRequest } from './requested.ts'
import { isTerminal, type JobStatus } from './states.ts'

export const FINE_TUNING_JOB = 'fine_tuning.job'

/** Whose job it is. */
export interface JobOwner {
  project_id: string
  organization_id: string
  organization_slug: string
}

export interface JobsOptions {
  stores: Stores
  models: Pick<ModelRegistry, 'resolveRoot' | 'resolve'>
  /** How many devices work on jobs, where that is known: where no other process shares the database. */
  devices?: number | undefined
  /** How long a pause is waited for before the job is shown as it is by then. */
  pause_seconds?: number
  log: Pick<Logger, 'info'>
}

export interface Jobs {
  /** `commit` runs what is written, in one transaction; without it that is all there is in it. */
  create(
    owner: JobOwner,
    request: CreateJob,
    commit?: (write: (tx: Db) => Promise<FineTuningJob>) => Promise<FineTuningJob>,
  ): Promise<FineTuningJob>
  retrieve(project_id: string, id: string): Promise<FineTuningJob>
  /** One more than `limit`, where there are more; so with every list here. */
  list(project_id: string, query: Cursor & { metadata?: MetadataFilter }): Promise<FineTuningJob[]>
  cancel(project_id: string, id: string): Promise<FineTuningJob>
  /** Waits, for a while, until the worker has saved what there is. */
  pause(project_id: string, id: string): Promise<FineTuningJob>
  resume(project_id: string, id: string): Promise<FineTuningJob>
  events(project_id: string, id: string, query: Cursor): Promise<WorkEvent[]>
  checkpoints(project_id: string, id: string, query: Cursor): Promise<FineTuningCheckpoint[]>
}

export function createJobs({
  stores,
  models,
  log,
  devices: known,
  pause_seconds = 30,
}: JobsOptions): Jobs {
  const { db } = stores

  async function retrieve(project_id: string, id: string): Promise<FineTuningJob> {
    const job = await findJob(db, project_id, id)
    if (!job) throw jobNotFound(id)
    return job
  }

  return {
    retrieve,

    async create(owner, request, commit = (write) => transaction(db, write)) {
      const { project_id } = owner
      const requested = { stores, models, devices: known }
      const { method, root, initial, luthier, ...files } = await resolveRequest(
        requested,
        project_id,
        request,
      )

      const id = newId('ftjob-')
      const suffix = request.suffix ?? null
      const job = {
        id,
        project_id,
        organization_id: owner.organization_id,
        model: request.model,
        root,
        initial,
        user_provided_suffix: suffix,
        seed: request.seed ?? randomInt(2 ** 31),
        method,
        training_file: request.training_file,
        validation_file: request.validation_file ?? null,
        training_sha256: files.training.sha256,
        validation_sha256: files.validation?.sha256 ?? null,
        metadata: request.metadata ?? null,
        luthier,
        reference_sha256: files.reference?.sha256 ?? null,
        eval: files.eval && { eval_id: files.eval.eval_id, data_source: files.eval.data_source },
        eval_items_sha256: files.eval?.items_sha256 ?? null,
        model_name: tunedModelName(
          baseOfTunedName(request.model),
          owner.organization_slug,
          suffix,
          randomLetters(8),
        ),
      }
      const devices = hyperparametersOf(method).data_parallel ?? 1
      const created = await commit(async (tx) => {
        await insertWork(tx, { id, kind: FINE_TUNING_JOB, project_id, devices })
        const inserted = await insertJob(tx, job)
        await tell(tx, id, 'created', eventText.created(id))
        await tell(
          tx,
          id,
          'validating',
          eventText.validating(job.training_file, job.validation_file),
        )
        return inserted
      }).catch(async (error: unknown) => {
        if (!isForeignKeyViolation(error)) throw error
        // A file or the model was deleted meanwhile: whichever it was, looking again says so.
        await resolveRequest(requested, project_id, request)
        throw error
      })
      // A request that was sent twice is answered with the job of the first.
      if (created.id === id) log.info({ job: id, project: project_id }, 'job created')
      return created
    },

    async list(project_id, { after, limit, metadata }) {
      if (after !== undefined && !(await findJob(db, project_id, after))) throw badCursor(after)
      return listJobs(db, { project_id, after, limit: limit + 1, metadata })
    },

    async cancel(project_id, id) {
      const job = await retrieve(project_id, id)
      const cancelled = await cancelJob(stores, job)
      log.info({ job: id }, 'job cancelled')
      return cancelled
    },

    async pause(project_id, id) {
      const job = await retrieve(project_id, id)
      await transaction(db, async (tx) => {
        // The work first, as its holder's transactions do; then the job is held, so that it does not end meanwhile.
        await requestPause(tx, job.id)
        const { status } = await holdJob(tx, job.id)
        if (status !== 'running') throw wrongState(job.id, status, 'paused')
      })
      const end = Date.now() + pause_seconds * 1000
      while (true) {
        const now = await retrieve(project_id, id)
        if (isTerminal(now.status)) throw alreadyEnded(id)
        if (now.status === 'paused' || Date.now() > end) return now
        await sleep(PAUSE_POLL_MS)
      }
    },

    async resume(project_id, id) {
      const job = await retrieve(project_id, id)
      const resumed = await transaction(db, async (tx) => {
        await resumeWork(tx, job.id)
        const changed = await changeJob(tx, job.id, 'resumed')
        if (!changed) throw wrongState(job.id, (await holdJob(tx, job.id)).status, 'resumed')
        await tell(tx, id, newId('resumed-'), eventText.resumed())
        return changed
      })
      log.info({ job: id }, 'job resumed')
      return resumed
    },

    async events(project_id, id, query) {
      const { id: work_id } = await retrieve(project_id, id)
      return eventsOf(db, work_id, query)
    },

    async checkpoints(project_id, id, { after, limit }) {
      const { id: job_id } = await retrieve(project_id, id)
      if (after !== undefined && !(await isCheckpointCursor(db, job_id, after)))
        throw badCursor(after)
      return listCheckpoints(db, { job_id, after, limit: limit + 1 })
    },
  }
}

const PAUSE_POLL_MS = 100

const jobNotFound = (id: string) =>
  notFound(`Could not find fine tune: ${id}`, {
    param: 'fine_tuning_job_id',
  })

function wrongState(id: string, status: JobStatus, wished: 'paused' | 'resumed') {
  if (isTerminal(status)) return alreadyEnded(id)
  const only = wished === 'paused' ? 'a running job' : 'a paused job'
  return invalidRequest(
    `Job ${id} cannot be ${wished}: its status is '${status}', and only ${only} can be ${wished}.`,
    { code: 'invalid_job_state' },
  )
}
