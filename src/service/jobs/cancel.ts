// How jobs are cancelled: one by its owner, or all that a project has when it is archived.

import { ApiError, invalidRequest } from '../../errors.ts'
import { changeJob, type FineTuningJob, listUnended } from '../db/fine-tuning-jobs.ts'
import { transaction } from '../db/pool.ts'
import { cancelWork } from '../db/work.ts'
import type { Stores } from '../storage/objects.ts'
import { tell } from '../work/events.ts'
import { eventText } from './event-texts.ts'
import { releaseSuperseded } from './superseded.ts'

type Named = Pick<FineTuningJob, 'id' | 'project_id'>

/** Cancels the job, which ends whoever runs it; an error where it has ended before. */
export async function cancelJob(stores: Stores, { id, project_id }: Named): Promise<FineTuningJob> {
  const cancelled = await transaction(stores.db, async (tx) => {
    // The work first: its holder's transactions lock it first too.
    await cancelWork(tx, id)
    const changed = await changeJob(tx, id, 'cancelled')
    if (!changed) throw alreadyEnded(id)
    await tell(tx, id, 'cancelled', eventText.cancelled())
    return changed
  })
  await releaseSuperseded(stores, project_id, id)
  return cancelled
}

/** Cancels all jobs of the project that have not ended; returns the ids of those it has cancelled. */
export async function cancelJobsOf(stores: Stores, project_id: string): Promise<string[]> {
  const cancelled: string[] = []
  for (const job of await listUnended(stores.db, project_id)) {
    try {
      cancelled.push((await cancelJob(stores, job)).id)
    } catch (error) {
      // It ended just now.
      if (!(error instanceof ApiError)) throw error
    }
  }
  return cancelled
}

// Not a 409: clients try those again, and this will not change.
export const alreadyEnded = (id: string) =>
  invalidRequest(`Job has already completed: ${id}`, { code: 'invalid_job_state' })
