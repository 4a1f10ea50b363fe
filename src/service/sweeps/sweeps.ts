// What can be asked about sweeps: create, look, cancel. Bringing them forward is `run-sweep.ts`'s.

import { randomInt } from 'node:crypto'
import { invalidRequest, notFound } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { badCursor, type Cursor } from '../cursor.ts'
import {
  endSweep,
  findSweep,
  insertSweep,
  listSweeps,
  type Sweep,
} from '../db/fine-tuning-sweeps.ts'
import { transaction } from '../db/pool.ts'
import { cancelWork, insertWork } from '../db/work.ts'
import type { WorkEvent } from '../db/work-events.ts'
import { newId } from '../ids.ts'
import type { JobOwner } from '../jobs/jobs.ts'
import { type CreateJob, type RequestedDeps, resolveRequest } from '../jobs/requested.ts'
import type { Stores } from '../storage/objects.ts'
import { eventsOf, tell } from '../work/events.ts'
import { cancelTrials } from './cancel-trials.ts'
import type { Search } from './halving.ts'

export const FINE_TUNING_SWEEP = 'fine_tuning.sweep'

export interface CreateSweep {
  job: CreateJob
  search: Search
  /** Steps of all trials together; absent: four times those of the job as it was sent. */
  budget_steps?: number | null
  max_trials?: number
  seed?: number | null
}

export interface Sweeps {
  create(owner: JobOwner, request: CreateSweep): Promise<Sweep>
  retrieve(project_id: string, id: string): Promise<Sweep>
  /** One more than `limit`, where there are more. */
  list(project_id: string, query: Cursor): Promise<Sweep[]>
  /** Ends it, and all of its jobs that run or wait. */
  cancel(project_id: string, id: string): Promise<Sweep>
  events(project_id: string, id: string, query: Cursor): Promise<WorkEvent[]>
}

export interface SweepsDeps {
  stores: Stores
  models: RequestedDeps['models']
  log: Pick<Logger, 'info'>
}

const DEFAULT_TRIALS = 16

/** The sweeps of all projects. */
export function createSweeps({ stores, models, log }: SweepsDeps): Sweeps {
  const { db } = stores

  const retrieve = async (project_id: string, id: string): Promise<Sweep> => {
    const sweep = await findSweep(db, project_id, id)
    if (!sweep) throw notFound(`Could not find sweep: ${id}`, { param: 'sweep_id' })
    return sweep
  }

  return {
    retrieve,

    async create(owner, { job, search, budget_steps, max_trials = DEFAULT_TRIALS, seed }) {
      const { project_id, organization_id } = owner
      await resolveRequest({ stores, models }, project_id, job)
      if (job.validation_file == null && job.luthier?.data?.validation_split === undefined)
        throw invalidRequest(
          "A sweep compares its trials on validation rows: send a 'validation_file' or 'luthier.data.validation_split'.",
          { param: 'job.validation_file', code: 'invalid_value' },
        )
      checkSearch(search)
      const id = newId('ftsweep-')
      const created = await transaction(db, async (tx) => {
        await insertWork(tx, { id, kind: FINE_TUNING_SWEEP, project_id })
        await tell(tx, id, 'created', `Created sweep: ${id}`)
        return insertSweep(tx, {
          id,
          project_id,
          organization_id,
          job,
          search,
          budget_steps: budget_steps ?? null,
          max_trials,
          seed: seed ?? randomInt(2 ** 31),
        })
      })
      log.info({ sweep: id, project: project_id }, 'sweep created')
      return created
    },

    async list(project_id, { after, limit }) {
      if (after !== undefined && !(await findSweep(db, project_id, after))) throw badCursor(after)
      return listSweeps(db, { project_id, after, limit: limit + 1 })
    },

    async cancel(project_id, id) {
      await retrieve(project_id, id)
      const cancelled = await transaction(db, async (tx) => {
        await cancelWork(tx, id)
        const ended = await endSweep(tx, id, { status: 'cancelled' })
        if (!ended)
          throw invalidRequest(`Sweep has already completed: ${id}`, {
            code: 'invalid_sweep_state',
          })
        await tell(tx, id, 'cancelled', 'Sweep cancelled')
        return ended
      })
      await cancelTrials(stores, cancelled, () => true)
      log.info({ sweep: id }, 'sweep cancelled')
      return cancelled
    },

    async events(project_id, id, query) {
      await retrieve(project_id, id)
      return eventsOf(db, id, query)
    },
  }
}

function checkSearch(search: Search): void {
  if (Object.keys(search).length === 0)
    throw invalidRequest("'search' is empty: name at least one hyperparameter.", {
      param: 'search',
      code: 'invalid_value',
    })
  const rate = search.learning_rate
  if (rate && 'min' in rate && rate.min >= rate.max)
    throw invalidRequest(`'min' must be below 'max'; found ${rate.min} and ${rate.max}.`, {
      param: 'search.learning_rate.min',
      code: 'invalid_value',
    })
}
