// Ends jobs of a sweep that go on no more.

import { ApiError } from '../../errors.ts'
import { findJob } from '../db/fine-tuning-jobs.ts'
import type { Sweep, Trial } from '../db/fine-tuning-sweeps.ts'
import { cancelJob } from '../jobs/cancel.ts'
import { isTerminal } from '../jobs/states.ts'
import type { Stores } from '../storage/objects.ts'

/** Cancels the jobs of these trials that have not ended; what ended just now is as good. */
export async function cancelTrials(
  stores: Stores,
  { project_id, trials }: Pick<Sweep, 'project_id' | 'trials'>,
  which: (trial: Trial) => boolean,
): Promise<void> {
  for (const { job_id } of trials.filter(which)) {
    const job = await findJob(stores.db, project_id, job_id)
    if (!job || isTerminal(job.status)) continue
    try {
      await cancelJob(stores, job)
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
    }
  }
}
