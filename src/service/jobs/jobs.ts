// What can be asked about fine-tuning jobs: create, look, cancel. Running them is the scheduler's.

import { randomInt } from 'node:crypto'
import { invalidRequest, notFound } from '../../errors.ts'
import { type FileRecord, findFile } from '../db/files.ts'
import {
  type FineTuningCheckpoint,
  findCheckpoint,
  listCheckpoints,
} from '../db/fine-tuning-checkpoints.ts'
import {
  changeJob,
  type FineTuningJob,
  findJob,
  insertJob,
  listJobs,
  type MetadataFilter,
} from '../db/fine-tuning-jobs.ts'
import { transaction } from '../db/pool.ts'
import { cancelWork, insertWork } from '../db/work.ts'
import { findWorkEvent, listWorkEvents, type WorkEvent } from '../db/work-events.ts'
import { newId, randomLetters } from '../ids.ts'
import { tunedModelName } from '../models/names.ts'
import type { ModelRegistry } from '../models/registry.ts'
import type { Stores } from '../storage/objects.ts'
import { eventText } from './event-texts.ts'
import type { FileParam } from './file-errors.ts'
import { mergeHyperparameters, type SentHyperparameters } from './hyperparameters.ts'
import { releaseSuperseded } from './superseded.ts'
import { tell } from './tell.ts'

export const FINE_TUNING_JOB = 'fine_tuning.job'

/** Whose job it is. */
export interface JobOwner {
  project_id: string
  organization_id: string
  organization_slug: string
}

/** A request that fits the schema; what the schema cannot know is decided here. */
export interface CreateJob {
  model: string
  training_file: string
  validation_file?: string | null
  hyperparameters?: SentHyperparameters
  suffix?: string | null
  seed?: number | null
  method?: {
    type: 'supervised' | 'dpo' | 'reinforcement'
    supervised?: { hyperparameters?: SentHyperparameters }
    dpo?: object
    reinforcement?: object
  }
  integrations?: readonly unknown[] | null
  metadata?: Record<string, string> | null
}

export interface JobsOptions {
  stores: Stores
  models: Pick<ModelRegistry, 'resolveBase' | 'retrieve'>
}

export interface Cursor {
  after?: string | undefined
  limit: number
}

export interface Jobs {
  create(owner: JobOwner, request: CreateJob): Promise<FineTuningJob>
  retrieve(project_id: string, id: string): Promise<FineTuningJob>
  /** One more than `limit`, where there are more; so with every list here. */
  list(project_id: string, query: Cursor & { metadata?: MetadataFilter }): Promise<FineTuningJob[]>
  cancel(project_id: string, id: string): Promise<FineTuningJob>
  events(project_id: string, id: string, query: Cursor): Promise<WorkEvent[]>
  checkpoints(project_id: string, id: string, query: Cursor): Promise<FineTuningCheckpoint[]>
}

export function createJobs({ stores, models }: JobsOptions): Jobs {
  const { db } = stores

  async function retrieve(project_id: string, id: string): Promise<FineTuningJob> {
    const job = await findJob(db, project_id, id)
    if (!job) throw jobNotFound(id)
    return job
  }

  async function resolveBase(project_id: string, name: string) {
    const base = await models.resolveBase(name)
    if (base) return base
    // Throws where there is no such model at all.
    await models.retrieve(project_id, name)
    throw invalidRequest(
      `The model \`${name}\` is a tuned model; only base models can be tuned yet.`,
      { param: 'model', code: 'unsupported_model' },
    )
  }

  async function resolveFile(
    project_id: string,
    id: string,
    param: FileParam,
  ): Promise<FileRecord> {
    const file = await findFile(db, project_id, id)
    const where = { param, code: `invalid_${param}` }
    if (!file)
      throw invalidRequest(`The ${param.replace('_', ' ')} \`${id}\` does not exist.`, where)
    if (file.purpose !== 'fine-tune')
      throw invalidRequest(
        `The ${param.replace('_', ' ')} \`${id}\` has the purpose '${file.purpose}', expected 'fine-tune'.`,
        where,
      )
    return file
  }

  return {
    retrieve,

    async create(owner, request) {
      const { project_id } = owner
      refuseUnsupported(request)
      const base = await resolveBase(project_id, request.model)
      const training = await resolveFile(project_id, request.training_file, 'training_file')
      const validation =
        request.validation_file == null
          ? undefined
          : await resolveFile(project_id, request.validation_file, 'validation_file')

      const id = newId('ftjob-')
      const suffix = request.suffix ?? null
      const job = {
        id,
        project_id,
        organization_id: owner.organization_id,
        model: request.model,
        root: base.id,
        user_provided_suffix: suffix,
        seed: request.seed ?? randomInt(2 ** 31),
        method: {
          type: 'supervised' as const,
          supervised: {
            hyperparameters: mergeHyperparameters(
              request.hyperparameters,
              request.method?.supervised?.hyperparameters,
            ),
          },
        },
        training_file: request.training_file,
        validation_file: request.validation_file ?? null,
        training_sha256: training.sha256,
        validation_sha256: validation?.sha256 ?? null,
        metadata: request.metadata ?? null,
        model_name: tunedModelName(
          request.model,
          owner.organization_slug,
          suffix,
          randomLetters(8),
        ),
      }
      return transaction(db, async (tx) => {
        await insertWork(tx, { id, kind: FINE_TUNING_JOB, project_id })
        const created = await insertJob(tx, job)
        await tell(tx, id, 'created', eventText.created(id))
        await tell(
          tx,
          id,
          'validating',
          eventText.validating(job.training_file, job.validation_file),
        )
        return created
      })
    },

    async list(project_id, { after, limit, metadata }) {
      if (after !== undefined && !(await findJob(db, project_id, after))) throw badCursor(after)
      return listJobs(db, { project_id, after, limit: limit + 1, metadata })
    },

    async cancel(project_id, id) {
      const job = await retrieve(project_id, id)
      const cancelled = await transaction(db, async (tx) => {
        // The work first: its holder's transactions lock it first too.
        await cancelWork(tx, job.id)
        const changed = await changeJob(tx, job.id, 'cancelled')
        if (!changed) throw alreadyEnded(job.id)
        await tell(tx, id, 'cancelled', eventText.cancelled())
        return changed
      })
      await releaseSuperseded(stores, project_id, id)
      return cancelled
    },

    async events(project_id, id, { after, limit }) {
      const { id: work_id } = await retrieve(project_id, id)
      if (after !== undefined && !(await findWorkEvent(db, work_id, after))) throw badCursor(after)
      return listWorkEvents(db, { work_id, after, limit: limit + 1 })
    },

    async checkpoints(project_id, id, { after, limit }) {
      const { id: job_id } = await retrieve(project_id, id)
      if (after !== undefined && !(await findCheckpoint(db, job_id, after))) throw badCursor(after)
      return listCheckpoints(db, { job_id, after, limit: limit + 1 })
    },
  }
}

const METADATA_KEY = 64

function refuseUnsupported({ method, integrations, metadata }: CreateJob): void {
  for (const key of Object.keys(metadata ?? {}))
    if (key.length > METADATA_KEY)
      throw invalidRequest(
        `Invalid 'metadata': a key has ${key.length} characters, expected at most ${METADATA_KEY}.`,
        { param: 'metadata', code: 'invalid_value' },
      )
  if (method && method.type !== 'supervised')
    throw invalidRequest(
      `The method '${method.type}' is not supported yet. Supported value is: 'supervised'.`,
      { param: 'method.type', code: 'unsupported_method' },
    )
  for (const other of ['dpo', 'reinforcement'] as const)
    if (method?.[other] !== undefined)
      throw invalidRequest(`'method.${other}' does not belong to a method of type 'supervised'.`, {
        param: `method.${other}`,
        code: 'invalid_value',
      })
  if (integrations && integrations.length > 0)
    throw invalidRequest('Integrations are not supported yet.', {
      param: 'integrations',
      code: 'unsupported_integration',
    })
}

const jobNotFound = (id: string) =>
  notFound(`Could not find fine tune: ${id}`, {
    param: 'fine_tuning_job_id',
    code: 'fine_tune_not_found',
  })

// Not a 409: clients try those again, and this will not change.
const alreadyEnded = (id: string) =>
  invalidRequest(`Job has already completed: ${id}`, { code: 'invalid_job_state' })

const badCursor = (after: string) =>
  invalidRequest(`Invalid 'after': no object with id '${after}' in this list.`, {
    param: 'after',
    code: 'invalid_value',
  })
