// Sweeps as a kind of work: looks what its jobs have come to, and says which go on. All that it knows is in the
// database, and each move is one transaction: whoever looks next goes on from there.

import { ApiError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { changeJob, type FineTuningJob, findJob, setPauseShare } from '../db/fine-tuning-jobs.ts'
import { findStep, listSteps } from '../db/fine-tuning-steps.ts'
import {
  endSweep,
  findSweep,
  organizationSlug,
  type Sweep,
  setTrials,
  type Trial,
} from '../db/fine-tuning-sweeps.ts'
import type { PoolClient } from '../db/pool.ts'
import { endWork, type Lease, resumeWork } from '../db/work.ts'
import { insertWorkEvent } from '../db/work-events.ts'
import { newId } from '../ids.ts'
import { eventText } from '../jobs/event-texts.ts'
import type { JobError } from '../jobs/file-errors.ts'
import type { Jobs } from '../jobs/jobs.ts'
import type { CreateJob } from '../jobs/requested.ts'
import { isTerminal } from '../jobs/states.ts'
import type { ModelRegistry } from '../models/registry.ts'
import type { Stores } from '../storage/objects.ts'
import { tell, tellFailure } from '../work/events.ts'
import { failureOf } from '../work/failure.ts'
import { whileHeld } from '../work/held.ts'
import type { Outcome, WorkKind } from '../work/kind.ts'
import { Hopeless, patiently } from '../work/patience.ts'
import { cancelTrials } from './cancel-trials.ts'
import { choosePoints, goOn, type Point, SHARES } from './halving.ts'
import { FINE_TUNING_SWEEP } from './sweeps.ts'

export interface RunSweepDeps {
  stores: Stores
  jobs: Pick<Jobs, 'create'>
  models: Pick<ModelRegistry, 'delete'>
  log: Logger
}

/** How long it looks away. */
const LOOK_SECONDS = 1
/** Of the job as it was sent, where no budget is. */
const DEFAULT_BUDGET = 4

const WAITS: Outcome = { type: 'waits', seconds: LOOK_SECONDS }
const ENDED: Outcome = { type: 'ended' }

/** What startWorker is given. */
export const sweepKind = (deps: RunSweepDeps): WorkKind => ({
  kind: FINE_TUNING_SWEEP,
  quiet: true,
  run: (lease) => new Look(deps, lease).next(),
  fail: async (lease, cause) => {
    await new Look(deps, lease).failed(failureOf(cause, 'sweep'))
  },
})

/** One look at a sweep. */
class Look {
  readonly #deps: RunSweepDeps
  readonly #lease: Lease

  constructor(deps: RunSweepDeps, lease: Lease) {
    this.#deps = deps
    this.#lease = lease
  }

  async next(): Promise<Outcome> {
    const { db } = this.#deps.stores
    const { id, project_id } = this.#lease
    const sweep = await patiently(() => findSweep(db, project_id, id))
    if (!sweep) throw new Hopeless(`There is work for the sweep ${id}, but no such sweep.`)
    const { trials } = sweep
    // What an earlier look has dropped and had no time to cancel.
    await cancelTrials(this.#deps.stores, sweep, ({ dropped }) => dropped)
    if (trials.length === 0) {
      await this.#add(sweep, {})
      return WAITS
    }

    // The job as it was sent is the first trial, and says how many steps a trial has.
    const [first, ...others] = await this.#jobsOf(sweep)
    if (!first!.plan) return isTerminal(first!.status) ? this.#end(sweep, first!) : WAITS
    const points = this.#points(sweep, first!.plan)
    if (points.length < 2)
      throw new ApiError(
        400,
        `The budget of ${this.#budget(sweep, first!.plan)} steps is too small for two trials, the first of which has ${first!.plan.total_steps} steps.`,
        { param: 'budget_steps', code: 'invalid_value' },
      )
    for (const point of points.slice(trials.length)) await this.#add(sweep, point)
    if (points.length > trials.length) return WAITS

    // All that are still in have come as far as they were let.
    const running = [first!, ...others].filter((_, i) => !trials[i]!.dropped)
    if (!running.every(({ status }) => status === 'paused' || isTerminal(status))) return WAITS
    return this.#compare(sweep, running)
  }

  /** Ends it as failed, and its jobs. */
  async failed(error: JobError): Promise<void> {
    const { stores } = this.#deps
    const { id } = this.#lease
    const sweep = await this.#write(async (tx) => {
      await tellFailure(tx, id, error)
      const ended = await endSweep(tx, id, { status: 'failed', error })
      await endWork(tx, this.#lease)
      return ended
    })
    if (sweep) await cancelTrials(stores, sweep, () => true)
  }

  #budget = (sweep: Sweep, plan: NonNullable<FineTuningJob['plan']>): number =>
    sweep.budget_steps ?? DEFAULT_BUDGET * plan.total_steps

  #points(sweep: Sweep, plan: NonNullable<FineTuningJob['plan']>): Point[] {
    const { n_epochs, batch_size, total_steps } = plan
    const rows = (total_steps / n_epochs) * batch_size
    return choosePoints(sweep.search, {
      seed: sweep.seed,
      size: { rows, n_epochs, batch_size },
      budget: this.#budget(sweep, plan),
      max: sweep.max_trials,
    })
  }

  async #jobsOf({ project_id, trials }: Sweep): Promise<FineTuningJob[]> {
    const { db } = this.#deps.stores
    const jobs: FineTuningJob[] = []
    for (const { job_id } of trials) {
      const job = await findJob(db, project_id, job_id)
      if (!job) throw new Hopeless(`The sweep names the job ${job_id}, which is not there.`)
      jobs.push(job)
    }
    return jobs
  }

  /** Creates the job of another trial and notes it, both or neither. */
  async #add(sweep: Sweep, point: Point): Promise<void> {
    const { stores, jobs, log } = this.#deps
    const { project_id, organization_id } = sweep
    const organization_slug = await organizationSlug(stores.db, organization_id)
    const owner = { project_id, organization_id, organization_slug }
    const job = await jobs.create(owner, requestAt(sweep, point), (write) =>
      this.#write(async (tx) => {
        const job = await write(tx)
        await setPauseShare(tx, job.id, SHARES[0])
        const trial = { job_id: job.id, hyperparameters: point, rungs: [], dropped: false }
        const trials = [...sweep.trials, trial]
        await setTrials(tx, sweep.id, { trials, rung: sweep.rung })
        const named = Object.entries(point).map(([name, value]) => `${name} ${value}`)
        const what = named.length === 0 ? 'the job as it was sent' : named.join(', ')
        await tell(
          tx,
          sweep.id,
          `trial-${trials.length}`,
          `Trial ${trials.length} (${job.id}): ${what}`,
        )
        sweep.trials = trials
        return job
      }),
    )
    log.info({ sweep: sweep.id, job: job.id, ...point }, 'trial created')
  }

  /** Who goes on, or has won. */
  async #compare(sweep: Sweep, running: readonly FineTuningJob[]): Promise<Outcome> {
    const { stores, log } = this.#deps
    const { trials, rung } = sweep
    const results = await Promise.all(running.map((job) => this.#result(job)))
    const losses = results.map(({ valid_loss }) => valid_loss ?? Number.NaN)
    if (losses.every(Number.isNaN)) return this.#end(sweep, running[0]!)
    const isLast = running.every(({ status }) => status !== 'paused')
    const kept = goOn(losses, trials.length, rung).filter((i) => !Number.isNaN(losses[i]!))
    const staying = new Set((isLast ? kept.slice(0, 1) : kept).map((i) => running[i]!.id))
    const after = trials.map((trial): Trial => {
      const i = running.findIndex(({ id }) => id === trial.job_id)
      if (i < 0) return trial
      return {
        ...trial,
        rungs: [...trial.rungs, results[i]!],
        dropped: !staying.has(trial.job_id),
      }
    })
    const best = running[kept[0]!]!
    if (isLast) return this.#won({ ...sweep, trials: after }, best)

    await this.#write(async (tx) => {
      await setTrials(tx, sweep.id, { trials: after, rung: rung + 1 })
      for (const job of running.filter(
        ({ id, status }) => staying.has(id) && status === 'paused',
      )) {
        await setPauseShare(tx, job.id, SHARES[rung + 1] ?? null)
        await resumeWork(tx, job.id)
        await changeJob(tx, job.id, 'resumed')
        await tell(tx, job.id, `resumed-at-${rung}`, eventText.resumed())
      }
      const share = Math.round((SHARES[rung] ?? 1) * 100)
      await insertWorkEvent(tx, {
        id: newId('ftevent-'),
        work_id: sweep.id,
        dedupe_key: `rung-${rung}`,
        message: `After ${share} % of their steps ${staying.size} of ${running.length} trials go on; the best, ${best.id}, has a validation loss of ${losses[kept[0]!]!.toFixed(4)}`,
        data: { kind: 'rung', share: share / 100, go_on: [...staying] },
      })
    })
    log.info({ sweep: sweep.id, rung, going_on: staying.size }, 'trials compared')
    await cancelTrials(stores, { ...sweep, trials: after }, ({ dropped }) => dropped)
    return WAITS
  }

  /** How far a job has come, and the lowest validation loss on the way: of that the best checkpoint is published. */
  async #result(job: FineTuningJob): Promise<{ step: number; valid_loss: number | null }> {
    const { db } = this.#deps.stores
    const steps = await listSteps(db, job.id)
    const reached = job.state_step ?? steps.at(-1)?.step ?? 0
    if (job.status === 'failed' || job.status === 'cancelled')
      return { step: reached, valid_loss: null }
    // At a pause all validation rows are measured, though it is no epoch's end.
    const last = job.status === 'paused' ? await findStep(db, job.id, reached) : undefined
    const losses = steps.flatMap(({ full_valid_loss }) => full_valid_loss ?? [])
    if (last?.valid_loss !== undefined) losses.push(last.valid_loss)
    return { step: reached, valid_loss: losses.length === 0 ? null : Math.min(...losses) }
  }

  /** The winner's model stays, that of another which ran to its end goes. */
  async #won(sweep: Sweep, winner: FineTuningJob): Promise<Outcome> {
    const { stores, models, log } = this.#deps
    for (const job of await this.#jobsOf(sweep))
      if (job.id !== winner.id && job.fine_tuned_model !== null)
        await models.delete(sweep.project_id, job.fine_tuned_model).catch((error: unknown) => {
          // An earlier look has done it, or its owner.
          if (!(error instanceof ApiError)) throw error
        })
    await this.#write(async (tx) => {
      await setTrials(tx, sweep.id, { trials: sweep.trials, rung: sweep.rung + 1 })
      await endSweep(tx, sweep.id, { status: 'succeeded', winner: winner.id })
      await tell(
        tx,
        sweep.id,
        'succeeded',
        `The sweep has completed: ${winner.id} is the best, its model is ${winner.fine_tuned_model}`,
      )
      await endWork(tx, this.#lease)
    })
    log.info({ sweep: sweep.id, job: winner.id }, 'sweep succeeded')
    await cancelTrials(stores, sweep, ({ dropped }) => dropped)
    return ENDED
  }

  /** No trial can be compared: whatever is wrong with this one is wrong with all. */
  async #end(_: Sweep, job: FineTuningJob): Promise<Outcome> {
    const { code, message, param } = job.error ?? {
      code: 'no_result',
      message: 'No trial has come to a validation loss.',
      param: null,
    }
    await this.failed({ code, message: `Of the trial ${job.id}: ${message}`, param })
    return ENDED
  }

  #write<T>(body: (tx: PoolClient) => Promise<T>): Promise<T> {
    return whileHeld(this.#deps.stores.db, this.#lease, body)
  }
}

/** The job as it was sent, with the point's hyperparameters instead of its own. */
function requestAt({ job }: Sweep, { rank, ...point }: Point): CreateJob {
  const type = job.method?.type ?? 'supervised'
  const own = job.method ? hyperparametersIn(job) : job.hyperparameters
  const lora = rank === undefined ? own?.lora : { ...own?.lora, rank }
  const hyperparameters = { ...own, ...point, ...(lora && { lora }) }
  const { hyperparameters: _, ...rest } = job
  return {
    ...rest,
    method: { type, [type]: { hyperparameters } } as NonNullable<CreateJob['method']>,
  }
}

const hyperparametersIn = ({ method, hyperparameters }: CreateJob) => ({
  ...hyperparameters,
  ...method?.[method.type as 'supervised']?.hyperparameters,
})
