// What can be asked about merges: create, look, cancel. Doing them is `scheduler/run-merge.ts`'s.

import { describe, namesIn, parseRequested } from '../../engine/merge/requested.ts'
import type { MergeThreadEvent, MergeThreadRequest } from '../../engine/merge/thread.ts'
import { checkMergeValues, readMergeText } from '../../engine/merge/yaml.ts'
import { spawn } from '../../engine/runtime/thread.ts'
import { ApiError, invalidRequest, notFound } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { badCursor, type Cursor } from '../cursor.ts'
import { endMerge, findMerge, insertMerge, listMerges, type Merge } from '../db/merges.ts'
import { transaction } from '../db/pool.ts'
import { cancelWork, insertWork } from '../db/work.ts'
import type { WorkEvent } from '../db/work-events.ts'
import { newId, randomLetters } from '../ids.ts'
import type { JobOwner } from '../jobs/jobs.ts'
import { baseOfTunedName, tunedModelName } from '../models/names.ts'
import type { DiskQuota } from '../storage/disk-quota.ts'
import { releaseObjects, type Stores } from '../storage/objects.ts'
import { eventsOf, tell } from '../work/events.ts'
import {
  evalOfSearch,
  type InputDeps,
  inputFiles,
  parentsOf,
  rootOfResult,
  rowsOfSearch,
} from './inputs.ts'
import { endSearch } from './searched.ts'

export const MERGE = 'merge'

export const MERGE_THREAD = new URL('../../engine/merge/thread.ts', import.meta.url)

export interface CreateMerge {
  /** A mergekit YAML as it stands, or what it says. */
  config: string | Record<string, unknown>
  suffix?: string | null
  metadata?: Record<string, string> | null
}

export interface Merges {
  /** Checks that the models are there and fit together, by their headers alone. */
  create(owner: JobOwner, request: CreateMerge): Promise<Merge>
  retrieve(project_id: string, id: string): Promise<Merge>
  /** One more than `limit`, where there are more. */
  list(project_id: string, query: Cursor): Promise<Merge[]>
  cancel(project_id: string, id: string): Promise<Merge>
  events(project_id: string, id: string, query: Cursor): Promise<WorkEvent[]>
}

export interface MergesDeps extends InputDeps {
  stores: Stores
  quota: Pick<DiskQuota, 'admit'>
  /** What a message says of files, without the folders of this machine. */
  told: (message: string) => string
  log: Pick<Logger, 'info'>
}

/** The merges of all projects. */
export function createMerges({ stores, quota, told, log, ...inputs }: MergesDeps): Merges {
  const { db } = stores

  const retrieve = async (project_id: string, id: string): Promise<Merge> => {
    const merge = await findMerge(db, project_id, id)
    if (!merge) throw notFound(`Could not find merge: ${id}`, { param: 'merge_id' })
    return merge
  }

  return {
    retrieve,

    async create(owner, request) {
      const { project_id, organization_id, organization_slug } = owner
      const config = readConfig(request.config)
      const requested = parseRequested(config)
      const { name, method } = describe(requested)
      const names = namesIn(requested)
      const parents = parentsOf(names)
      const models = await inputFiles(inputs, project_id, names)
      await rootOfResult(inputs, project_id, requested)
      await rowsOfSearch(db, project_id, requested)
      const searched = await evalOfSearch(db, project_id, requested)
      const { tensors, bytes } = await check({ config, models }, told)
      await quota.admit(project_id, bytes)
      const suffix = request.suffix ?? name?.slice(0, 64) ?? null
      const id = newId('ftmerge-')
      const created = await transaction(db, async (tx) => {
        await insertWork(tx, { id, kind: MERGE, project_id })
        await tell(tx, id, 'created', `Created merge: ${id}`)
        return insertMerge(tx, {
          id,
          project_id,
          organization_id,
          config,
          parents,
          user_provided_suffix: suffix,
          metadata: request.metadata ?? null,
          tensors,
          bytes,
          eval: searched ? { eval_id: searched.eval_id, data_source: searched.data_source } : null,
          eval_items_sha256: searched?.items_sha256 ?? null,
          model_name: tunedModelName(
            baseOfTunedName(names[0]!.model),
            organization_slug,
            suffix,
            randomLetters(8),
          ),
        })
      })
      log.info({ merge: id, project: project_id, method }, 'merge created')
      return created
    },

    async list(project_id, { after, limit }) {
      if (after !== undefined && !(await findMerge(db, project_id, after))) throw badCursor(after)
      return listMerges(db, { project_id, after, limit: limit + 1 })
    },

    async cancel(project_id, id) {
      await retrieve(project_id, id)
      const { cancelled, free } = await transaction(db, async (tx) => {
        await cancelWork(tx, id)
        const ended = await endMerge(tx, id, { status: 'cancelled' })
        if (!ended)
          throw invalidRequest(`Merge has already completed: ${id}`, {
            code: 'invalid_merge_state',
          })
        const free = await endSearch(tx, id)
        await tell(tx, id, 'cancelled', 'Merge cancelled')
        return { cancelled: ended, free }
      })
      await releaseObjects(stores, project_id, free)
      log.info({ merge: id }, 'merge cancelled')
      return cancelled
    },

    async events(project_id, id, query) {
      await retrieve(project_id, id)
      return eventsOf(db, id, query)
    },
  }
}

function readConfig(config: CreateMerge['config']): Record<string, unknown> {
  const documents = typeof config === 'string' ? readMergeText(config) : [config]
  const [only] = documents
  if (documents.length !== 1 || typeof only !== 'object' || only === null || Array.isArray(only))
    throw invalidRequest(
      `The merge cannot be read: expected one document of fields, found ${documents.length}.`,
      { param: 'config', code: 'invalid_yaml' },
    )
  checkMergeValues(documents)
  return only as Record<string, unknown>
}

/** Opens the models in a thread; what is wrong with their files is the caller's to know. */
async function check(
  { config, models }: Pick<MergeThreadRequest, 'config' | 'models'>,
  told: MergesDeps['told'],
): Promise<{ tensors: number; bytes: number }> {
  await using thread = spawn<MergeThreadRequest, MergeThreadEvent>(MERGE_THREAD)
  try {
    const request = { only_check: true, config, models, out: '', threads: 1 }
    for await (const event of thread.run(request)) if (event.type === 'checked') return event
  } catch (error) {
    if (error instanceof ApiError) throw new ApiError(error.status, told(error.message), error)
    const why = told(error instanceof Error ? error.message : String(error))
    throw invalidRequest(`The models cannot be merged: ${why}.`, {
      param: 'config',
      code: 'invalid_model',
    })
  }
  throw new Error('The check of a merge ended without a result.')
}
