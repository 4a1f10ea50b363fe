// Objects that a job has left behind. They are noted in the transaction that leaves them, so a crash forgets none.

import { listSuperseded, listUnreleased, removeSuperseded } from '../db/fine-tuning-jobs.ts'
import { releaseObject, type Stores } from '../storage/objects.ts'
import { patiently } from '../work/patience.ts'

/** Releases what a job needs no more; what is noted stays noted until it is released. */
export async function releaseSuperseded(
  stores: Stores,
  project_id: string,
  job_id: string,
): Promise<void> {
  for (const sha256 of await patiently(() => listSuperseded(stores.db, job_id))) {
    await patiently(() => releaseObject(stores, { project_id, sha256 }))
    await patiently(() => removeSuperseded(stores.db, job_id, sha256))
  }
}

/** The same for every job that ended in a process which died before it had released all. */
export async function releaseEnded(stores: Stores): Promise<void> {
  for (const { id, project_id } of await listUnreleased(stores.db))
    await releaseSuperseded(stores, project_id, id)
}
