// Which checkpoint of a job becomes its model.

import {
  type FineTuningCheckpoint,
  findBestCheckpoint,
  findCheckpointAt,
} from '../db/fine-tuning-checkpoints.ts'
import type { FineTuningJob } from '../db/fine-tuning-jobs.ts'
import type { Db } from '../db/pool.ts'
import { Hopeless } from '../work/patience.ts'
import { bestBy, publishes } from './publishing.ts'

/** It has its files. */
export type PublishedCheckpoint = FineTuningCheckpoint & {
  adapter_sha256: string
  adapter_config_sha256: string
}

/** The best one, or that of the last step. Throws where none was saved. */
export async function publishedCheckpoint(
  db: Db,
  job: FineTuningJob,
  step: number,
): Promise<PublishedCheckpoint> {
  const best =
    publishes(job) === 'best' ? await findBestCheckpoint(db, job.id, bestBy(job)) : undefined
  const chosen = best ?? (await findCheckpointAt(db, job.id, step))
  const { adapter_sha256, adapter_config_sha256 } = chosen ?? {}
  if (!chosen || !adapter_sha256 || !adapter_config_sha256)
    throw new Hopeless(
      `Training of ${job.id} ended at step ${step}, but no adapter was saved there.`,
    )
  return { ...chosen, adapter_sha256, adapter_config_sha256 }
}
