// One fine-tuning job, from its files to its model: drives the training thread and keeps what it yields.

import type { Compute } from '../../engine/runtime/device.ts'
import type {
  Hyperparameters,
  Plan,
  TrainEvent,
  TrainThreadRequest,
} from '../../engine/train/request.ts'
import { ApiError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { type FineTuningJob, findJob } from '../db/fine-tuning-jobs.ts'
import { type Lease, LeaseLost } from '../db/work.ts'
import { fileFailure, preflightFailure } from '../jobs/file-errors.ts'
import { type InspectedPaths, inspectRequest } from '../jobs/inspection.ts'
import { Progress } from '../jobs/progress.ts'
import { isGuarded } from '../jobs/publishing.ts'
import { isTerminal } from '../jobs/states.ts'
import type { Metrics } from '../metrics/metrics.ts'
import type { ModelRegistry } from '../models/registry.ts'
import { type LocalFile, localFile } from '../storage/local-file.ts'
import { objectKey } from '../storage/object-store.ts'
import { type Stores, sweepUnknown } from '../storage/objects.ts'
import { type Outcome, WorkPauses } from '../work/kind.ts'
import { Hopeless, patiently } from '../work/patience.ts'
import type { AdapterFile } from './adapter-files.ts'
import { publishJob } from './publish-job.ts'
import { cancelRunOfStep, scoreCheckpoint, unscoredStep } from './score-checkpoint.ts'
import type { Serving } from './serving.ts'
import type { Reserved, TrainingMemory } from './training-memory.ts'
import { ask, type TrainingThread, TrainingThreads } from './training-thread.ts'

export interface RunJobDeps {
  stores: Stores
  models: Pick<ModelRegistry, 'resolveRoot' | 'bases'>
  /** Folder for converted weights, shared by all threads and processes. */
  cache: string
  /** The adapter that a job goes on from, as files on this machine. */
  adapterFile: AdapterFile
  /** A thread of its own for every run, so that a job's memory is given back with it. */
  spawnThread: () => TrainingThread
  /** Who will serve the model: holds it against its training, which makes it resident, so that it answers at once. */
  serving: Pick<Serving, 'certify' | 'warm'>
  /** Of frozen weights in training, where the job does not say. */
  precision: NonNullable<Hyperparameters['precision']>
  /** What each device of a job is. */
  compute: Compute
  /** What all jobs of this process share. */
  memory: TrainingMemory
  log: Logger
  /** What is counted of training. */
  metrics?: Pick<Metrics, 'stepped' | 'rested'>
}

/** Runs the job from where it stands. Throws `LeaseLost` when it is not ours any more. */
export async function runJob(
  deps: RunJobDeps,
  lease: Lease,
  signal: AbortSignal,
): Promise<Outcome> {
  const run = new Run(deps, lease, signal)
  const sweeping = lease.interrupted ? sweep(deps, lease) : undefined
  try {
    return await run.toEnd()
  } catch (error) {
    // A pause wants the last state: an error on the way there is one, not an end.
    if (!signal.aborted || signal.reason instanceof WorkPauses) throw error
    if (signal.reason instanceof LeaseLost) throw signal.reason
    if (error instanceof LeaseLost) throw error
    deps.log.warn({ job: lease.id, err: error }, 'job stopped without a last state')
    return { type: 'stopped' }
  } finally {
    deps.metrics?.rested()
    await sweeping
  }
}

/** What a dead holder may have stored without getting to name it. */
async function sweep({ stores, log }: RunJobDeps, { id, project_id }: Lease): Promise<void> {
  try {
    const removed = await sweepUnknown(stores, project_id)
    if (removed > 0) log.info({ job: id, removed }, 'rest of an interrupted run removed')
  } catch (err) {
    log.warn({ job: id, err }, 'rest of an interrupted run could not be removed')
  }
}

class Run {
  readonly #deps: RunJobDeps
  readonly #lease: Lease
  readonly #progress: Progress
  readonly #signal: AbortSignal
  readonly #lost = new AbortController()

  constructor(deps: RunJobDeps, lease: Lease, signal: AbortSignal) {
    this.#deps = deps
    this.#lease = lease
    this.#progress = new Progress(deps.stores, lease)
    this.#signal = AbortSignal.any([signal, this.#lost.signal])
  }

  async toEnd(): Promise<Outcome> {
    let job = await this.#progress.job()
    const base = await this.#deps.models.resolveRoot(job.project_id, job.root)
    if (!base)
      throw new ApiError(400, `The base model \`${job.root}\` is not installed any more.`, {
        param: 'model',
        code: 'model_not_found',
      })
    await using training = await this.#file(job, job.training_sha256)
    await using validation = job.validation_sha256
      ? await this.#file(job, job.validation_sha256)
      : undefined
    await using reference =
      job.reference_sha256 && job.status === 'validating_files'
        ? await this.#file(job, job.reference_sha256)
        : undefined
    await using threads = new TrainingThreads(this.#deps.spawnThread)
    const files = {
      model: base.path,
      training: { path: training.path },
      ...(validation && { validation: { path: validation.path } }),
      method: job.method.type,
    }

    if (job.status === 'validating_files') {
      const models = reference ? await this.#deps.models.bases() : []
      if (await this.#validate(job, threads.current, { ...files, reference, models }))
        return { type: 'ended' }
      job = await this.#progress.job()
    }
    if (!job.plan) throw new Hopeless(`The job ${job.id} is ${job.status} but has no plan.`)
    using _memory = await this.#room(job, job.plan)
    const initial = job.initial && (await this.#initial(job, base.path))
    // Awaited here: the threads and the files live until this returns.
    while (true) {
      const scored = await this.#scored(job)
      if (!scored) return { type: 'stopped' }
      const { plan, eval: wanted, eval_scores, seed } = scored
      if (!plan) throw new Hopeless(`The job ${job.id} has lost its plan.`)
      const outcome = await this.#train(scored, threads.current, {
        ...files,
        type: 'train',
        cache: this.#deps.cache,
        plan,
        seed,
        probe: isGuarded(job),
        ...(initial && { initial }),
        ...(wanted && { scores: eval_scores.map(({ eval_score }) => eval_score) }),
      })
      if (outcome.type !== 'unscored') return outcome
      // Nothing is trained meanwhile: the memory is others'.
      await threads.end()
      job = await this.#progress.job()
    }
  }

  /** The job once the epoch's end at which it stands has its score, where it is to have one; undefined where it stops. */
  async #scored(job: FineTuningJob): Promise<FineTuningJob | undefined> {
    const step = unscoredStep(job)
    if (step === undefined) return job
    const { stores, log } = this.#deps
    // What pauses scores when it goes on; behind the last step there is nothing to pause any more.
    const pauses = this.#signal.reason instanceof WorkPauses
    const isLast = step === job.plan?.total_steps
    if (pauses && !isLast) return job
    const signal = pauses ? this.#lost.signal : this.#signal
    try {
      const lease = this.#lease
      const score = await scoreCheckpoint(stores.db, { job, step, lease, signal })
      if (!score) return job
      await this.#progress.scored(score, job.eval!.eval_id)
      log.info({ job: job.id, step, score: score.eval_score }, 'checkpoint evaluated')
    } catch (error) {
      if (!this.#signal.aborted) throw error
      const { reason } = this.#signal
      if (reason instanceof WorkPauses) return isLast ? this.#scored(job) : job
      if (!(reason instanceof LeaseLost)) {
        await this.#progress.requeued()
        return undefined
      }
      const now = await findJob(stores.db, job.project_id, job.id)
      if (now && isTerminal(now.status)) await cancelRunOfStep(stores.db, job.id, step)
      throw reason
    }
    return this.#progress.job()
  }

  /** Waits until what is forecast of the job fits beside the jobs that run here. */
  async #room(job: FineTuningJob, { memory_bytes = 0 }: Plan): Promise<Reserved> {
    // Work that is to be paused must start first, for a state: it goes on waiting.
    const stop = new AbortController()
    const follow = () => {
      if (!(this.#signal.reason instanceof WorkPauses)) stop.abort(this.#signal.reason)
    }
    if (this.#signal.aborted) follow()
    this.#signal.addEventListener('abort', follow)
    using _ = { [Symbol.dispose]: () => this.#signal.removeEventListener('abort', follow) }
    this.#deps.log.debug({ job: job.id, memory_bytes }, 'waits for memory')
    return await this.#deps.memory.reserve(memory_bytes, stop.signal)
  }

  /** Whether the job has failed: its files are not fit for training. */
  async #validate(
    job: FineTuningJob,
    thread: TrainingThread,
    files: InspectedPaths,
  ): Promise<boolean> {
    const { memory, ...defaults } = this.#deps
    const request = inspectRequest(job, files, {
      ...defaults,
      measure: 'large',
      memory: memory.total,
    })
    // Reading a large file is not worth waiting for; there is nothing to save yet either.
    const quit = () => void thread[Symbol.asyncDispose]()
    this.#signal.addEventListener('abort', quit)
    using _ = { [Symbol.dispose]: () => this.#signal.removeEventListener('abort', quit) }
    for await (const event of ask(thread, request, this.#signal)) {
      if (event.type === 'progress') await this.#progress.judging(event)
      if (event.type !== 'inspected') continue
      const { preflight } = event
      if (preflight) await this.#progress.judged(preflight)
      const failure = fileFailure(event, job) ?? (preflight && preflightFailure(preflight))
      if (failure) {
        await this.#progress.failed(failure)
        const { code } = failure.error
        this.#deps.log.info({ job: job.id, code }, 'job failed: its files are not fit for training')
        return true
      }
      if (!event.plan) throw new Error('The files are fit for training, but there is no plan.')
      const warnings = [event.training, event.validation].flatMap((file) => file?.warnings ?? [])
      await this.#progress.planned(event.plan, warnings, event.forecast)
      this.#deps.log.info({ job: job.id, steps: event.plan.total_steps }, 'job planned')
      return false
    }
    throw new Error('The inspection of the files ended without a result.')
  }

  async #train(
    job: FineTuningJob,
    thread: TrainingThread,
    request: Extract<TrainThreadRequest, { type: 'train' }>,
  ): Promise<Outcome | { type: 'unscored' }> {
    await this.#progress.started()
    const pauseAt =
      job.pause_share === null ? undefined : Math.ceil(job.pause_share * request.plan.total_steps)
    const rests = (event: { step: number }) =>
      this.#signal.reason instanceof WorkPauses || event.step === pauseAt
    const state = job.state_sha256 ? await this.#bytes(job, job.state_sha256) : undefined
    const began = Date.now()
    const first = job.state_step ?? 0
    const tell = (fields: object, message: string) =>
      this.#deps.log.info({ job: job.id, ...fields }, message)
    let last = { at: began, tokens: first === 0 ? 0 : undefined }
    let done: Extract<TrainEvent, { type: 'done' }> | undefined
    let paused = false
    let unscored = false
    let stopped: Extract<TrainEvent, { type: 'stopped' }> | undefined
    let lost: LeaseLost | undefined

    // Work that is claimed in order to be paused must start first: what rests is a state, and a model.
    if (!(this.#signal.reason instanceof WorkPauses)) this.#signal.throwIfAborted()
    const quit = new AbortController()
    const follow = () => quit.abort(this.#signal.reason)
    // Until it has started there is no state to save, and reading a large file is not worth waiting for.
    let started = false
    const early = () => {
      if (!started && !(this.#signal.reason instanceof WorkPauses))
        void thread[Symbol.asyncDispose]()
    }
    this.#signal.addEventListener('abort', early)
    using _ = {
      [Symbol.dispose]: () => {
        this.#signal.removeEventListener('abort', early)
        this.#signal.removeEventListener('abort', follow)
      },
    }

    const keep = async (event: TrainEvent): Promise<void> => {
      switch (event.type) {
        case 'step': {
          const { step, total_steps } = event.metrics
          const now = Date.now()
          // A step that was stopped while it was validated comes again, and says nothing of the pace.
          const pace = step > first ? (now - began) / (step - first) : 0
          await this.#progress.step(event.metrics, new Date(now + pace * (total_steps - step)))
          // Before its first step nobody knows how many tokens an earlier process had trained on.
          if (last.tokens !== undefined)
            this.#deps.metrics?.stepped({
              tokens: event.trained_tokens - last.tokens,
              seconds: (now - last.at) / 1000,
            })
          last = { at: now, tokens: event.trained_tokens }
          return
        }
        case 'stopped':
          stopped = event
          return
        case 'state':
          if (!stopped || !rests(stopped)) {
            await this.#progress.state(event)
            return tell({ step: event.step }, 'state saved')
          }
          await this.#progress.paused(job, stopped, event)
          paused = true
          return tell({ step: event.step }, 'job paused')
        case 'checkpoint':
          await this.#progress.checkpoint(job, event)
          return tell({ step: event.metrics.step }, 'checkpoint saved')
        case 'done':
          done = event
          return
        case 'precision':
          await this.#progress.precision(event)
          return tell({ precision: event.precision, reason: event.reason }, 'precision chosen')
        case 'started':
          started = true
          tell({ step: event.step }, 'training started')
          if (this.#signal.aborted) follow()
          else this.#signal.addEventListener('abort', follow, { once: true })
          return
        case 'unscored':
          unscored = true
          return
        case 'inspected':
        case 'progress':
        case 'evidence':
          return
        default:
          event satisfies never
      }
    }

    // Once the lease is lost the thread is let run to its own end: it stops within a step, and nothing is kept.
    try {
      for await (const event of ask(
        thread,
        {
          ...request,
          ...(pauseAt !== undefined && { pause_at: pauseAt }),
          ...(state && { state }),
        },
        quit.signal,
      )) {
        if (lost) continue
        try {
          await keep(event)
        } catch (error) {
          if (!(error instanceof LeaseLost)) throw error
          lost = error
          this.#lost.abort(error)
        }
      }
    } catch (error) {
      throw lost ?? error
    }
    if (lost) throw lost
    if (done) {
      const { signal } = this.#lost
      await publishJob(this.#deps, {
        progress: this.#progress,
        done,
        thread,
        trained: request,
        signal,
      })
      return { type: 'ended' }
    }
    if (paused) return { type: 'paused' }
    if (unscored) return { type: 'unscored' }
    if (!this.#signal.aborted) throw new Error('Training ended without a result.')
    if (this.#signal.reason instanceof LeaseLost) throw this.#signal.reason
    await this.#progress.requeued()
    return { type: 'stopped' }
  }

  #initial({ project_id, root, initial }: FineTuningJob, base_path: string): Promise<string> {
    const { model: id, ...adapter } = initial!
    return patiently(() => this.#deps.adapterFile({ id, adapter, base_path, root, project_id }))
  }

  #file(job: FineTuningJob, sha256: string): Promise<LocalFile> {
    return patiently(() => localFile(this.#deps.stores.store, objectKey(job.project_id, sha256)))
  }

  #bytes(job: FineTuningJob, sha256: string): Promise<Uint8Array> {
    const key = objectKey(job.project_id, sha256)
    return patiently(async () => {
      const chunks: Buffer[] = []
      for await (const chunk of await this.#deps.stores.store.get(key)) chunks.push(chunk)
      return Buffer.concat(chunks)
    })
  }
}
