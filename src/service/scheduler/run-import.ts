// Imports as a kind of work: unpacked into a folder of their own, looked at in a thread, then published. A run that was
// interrupted begins anew.

import { rm } from 'node:fs/promises'
import type { Logger } from '../../log.ts'
import { endImport, findImport, setImporting } from '../db/imports.ts'
import { endWork, holdLease, type Lease, LeaseLost } from '../db/work.ts'
import { IMPORT } from '../imports/imports.ts'
import { type Arrived, unpack } from '../imports/unpack.ts'
import { objectKey } from '../storage/object-store.ts'
import { tell, tellFailure } from '../work/events.ts'
import { failureOf } from '../work/failure.ts'
import { whileHeld } from '../work/held.ts'
import type { Outcome, WorkKind } from '../work/kind.ts'
import { Hopeless, patiently } from '../work/patience.ts'
import { startWorker, type Worker, type WorkerOptions } from '../work/worker.ts'
import { type ImportModelDeps, lookAt, publishImport } from './import-model.ts'

export interface RunImportDeps extends ImportModelDeps {
  log: Logger
}

export type ImportingOptions = RunImportDeps &
  Pick<WorkerOptions, 'lease_seconds' | 'poll_seconds'> & {
    /** `cpu`, …: as the work's column has it. */
    device: string
  }

/** Starts claiming imports, one at a time; dispose it to stop. */
export function startImporting(options: ImportingOptions): Worker {
  const { lease_seconds, poll_seconds, device, ...deps } = options
  return startWorker({
    db: deps.stores.db,
    log: deps.log,
    kinds: [importKind(deps)],
    devices: { device, devices: 1 },
    ...(lease_seconds !== undefined && { lease_seconds }),
    ...(poll_seconds !== undefined && { poll_seconds }),
  })
}

const importKind = (deps: RunImportDeps): WorkKind => ({
  kind: IMPORT,
  run: async (lease, signal) => {
    try {
      return await run(deps, lease, signal)
    } catch (error) {
      if (error instanceof LeaseLost) throw error
      if (!signal.aborted) throw error
      if (signal.reason instanceof LeaseLost) throw signal.reason
      return { type: 'stopped' }
    } finally {
      await rm(deps.folders.aside(lease.id), { recursive: true, force: true })
    }
  },
  fail: (lease, cause) => failed(deps, lease, cause),
})

async function run(deps: RunImportDeps, lease: Lease, signal: AbortSignal): Promise<Outcome> {
  const { stores, folders, log } = deps
  const { id, project_id } = lease
  const { db } = stores
  const one = await patiently(() => findImport(db, project_id, id))
  if (!one) throw new Hopeless(`There is work for the import ${id}, but no such import.`)
  await whileHeld(db, lease, async (tx) => {
    await setImporting(tx, id)
    await tell(tx, id, 'unpacking', 'The files are unpacked and looked at')
  })
  const arrived = one.received.map(
    ({ filename, bytes, sha256 }): Arrived => ({
      filename,
      bytes,
      open: () => stores.store.get(objectKey(project_id, sha256)),
    }),
  )
  const aside = folders.aside(id)
  const unpacked = await patiently(async () => {
    await rm(aside, { recursive: true, force: true })
    return unpack(arrived, aside)
  })
  signal.throwIfAborted()
  const { folder } = unpacked
  const { base_model } = one
  const looked = await lookAt(deps, { project_id, folder, base_model }, signal)
  const model = await publishImport(
    deps,
    { one, looked, unpacked },
    async (tx, name) => {
      await holdLease(tx, lease)
      await tell(tx, id, 'succeeded', `The import has completed: its model is ${name}`)
      await endWork(tx, lease)
    },
    signal,
  )
  log.info({ import: id, model, kind: looked.kind }, 'import succeeded')
  return { type: 'ended' }
}

async function failed(deps: RunImportDeps, lease: Lease, cause: unknown): Promise<void> {
  const { id } = lease
  const error = failureOf(cause, 'import')
  await whileHeld(deps.stores.db, lease, async (tx) => {
    await tellFailure(tx, id, error)
    await endImport(tx, id, { status: 'failed', error })
    await endWork(tx, lease)
  })
}
