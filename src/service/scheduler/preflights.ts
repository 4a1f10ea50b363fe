// A job's files judged without a job: what POST /fine_tuning/alpha/preflight asks for. One after the other, each in a
// thread of its own, which takes a turn on the device only to measure how fast a base is that never ran here.

import type { Compute } from '../../engine/runtime/device.ts'
import { spawn, type TakeTurn } from '../../engine/runtime/thread.ts'
import type { PreflightReport } from '../../engine/train/preflight-report.ts'
import type { Hyperparameters, TrainEvent, TrainThreadRequest } from '../../engine/train/request.ts'
import { ApiError } from '../../errors.ts'
import { inspectRequest } from '../jobs/inspection.ts'
import { type CreateJob, type RequestedDeps, resolveRequest } from '../jobs/requested.ts'
import type { ModelRegistry } from '../models/registry.ts'
import { localFile } from '../storage/local-file.ts'
import { objectKey } from '../storage/object-store.ts'
import type { Stores } from '../storage/objects.ts'

export interface Preflights {
  run(project_id: string, request: CreateJob, signal: AbortSignal): Promise<PreflightReport>
}

export interface PreflightDeps extends Pick<RequestedDeps, 'devices'> {
  models: RequestedDeps['models'] & Pick<ModelRegistry, 'bases'>
  stores: Stores
  precision: NonNullable<Hyperparameters['precision']>
  compute: Compute
  /** Folder for converted weights. */
  cache: string
  /** Turns on the device; absent: this process has none, and measures nothing. */
  takeTurn?: TakeTurn
}

const WORKER = new URL('../../engine/train/worker.ts', import.meta.url)
/** So many requests may wait for their turn. */
const MOST_WAITING = 16

export function createPreflights(deps: PreflightDeps): Preflights {
  const { stores, models, devices } = deps
  const defaults = { ...deps, measure: deps.takeTurn !== undefined }
  let turn: Promise<unknown> = Promise.resolve()
  let waiting = 0

  async function judge(project_id: string, request: CreateJob, signal: AbortSignal) {
    signal.throwIfAborted()
    const requested = { stores, models, devices }
    const found = await resolveRequest(requested, project_id, request)
    const base = await models.resolveRoot(project_id, found.root)
    if (!base) throw new Error(`The base model ${found.root} is not there any more.`)
    const open = (sha256: string) => localFile(stores.store, objectKey(project_id, sha256))
    await using training = await open(found.training.sha256)
    await using validation = found.validation && (await open(found.validation.sha256))
    await using reference = found.reference && (await open(found.reference.sha256))
    await using thread = spawn<TrainThreadRequest, TrainEvent>(WORKER, deps.takeTurn)
    const quit = () => void thread[Symbol.asyncDispose]()
    signal.addEventListener('abort', quit)
    using _ = { [Symbol.dispose]: () => signal.removeEventListener('abort', quit) }
    const bases = reference ? await models.bases() : []
    const paths = { model: base.path, training, validation, reference, models: bases }
    for await (const event of thread.run(inspectRequest(found, paths, defaults), signal))
      if (event.type === 'inspected' && event.preflight) return event.preflight
    throw new Error('The inspection of the files ended without a result.')
  }

  return {
    async run(project_id, request, signal) {
      if (waiting >= MOST_WAITING)
        throw new ApiError(429, 'Too many preflights are waiting; please try again later.', {
          code: 'rate_limit_exceeded',
        })
      waiting++
      const mine = turn.then(() => judge(project_id, request, signal))
      turn = mine.catch(() => {})
      try {
        return await mine
      } finally {
        waiting--
      }
    },
  }
}
