// What a running job writes down, each thing in one transaction that first makes sure of the lease.

import type { Certificate } from '../../engine/parity/parity.ts'
import { methodOf } from '../../engine/train/methods/index.ts'
import type { PreflightReport } from '../../engine/train/preflight-report.ts'
import type { Forecast, Plan, StepMetrics, TrainEvent } from '../../engine/train/request.ts'
import { insertFile } from '../db/files.ts'
import {
  addMetrics,
  findCheckpointAt,
  insertCheckpoint,
  pruneCheckpoints,
  renameCheckpoint,
} from '../db/fine-tuning-checkpoints.ts'
import {
  addEvalScore,
  addSuperseded,
  changeJob,
  type FineTuningJob,
  findJob,
  setError,
  setEstimatedFinish,
  setPrecision,
  setResult,
  setState,
} from '../db/fine-tuning-jobs.ts'
import { insertRowLosses } from '../db/fine-tuning-row-losses.ts'
import { findStep, listSteps, upsertStep } from '../db/fine-tuning-steps.ts'
import { insertModel } from '../db/models.ts'
import type { PoolClient } from '../db/pool.ts'
import { endWork, holdLease, type Lease, noteProgress, pauseWork } from '../db/work.ts'
import { insertWorkEvent } from '../db/work-events.ts'
import { newId } from '../ids.ts'
import { checkpointName } from '../models/names.ts'
import { keepObject, keepObjects, type Stores } from '../storage/objects.ts'
import { tell, tellFailure } from '../work/events.ts'
import { whileHeld } from '../work/held.ts'
import { Hopeless, patiently } from '../work/patience.ts'
import type { EvalScore } from './checkpoint-evals.ts'
import {
  checkpointMetrics,
  eventText,
  isTold,
  publishedText,
  stepData,
  stepText,
} from './event-texts.ts'
import type { JobFailure } from './file-errors.ts'
import { type PublishedCheckpoint, publishedCheckpoint } from './published-checkpoint.ts'
import { bestBy, publishes, regressionOf } from './publishing.ts'
import { resultCsv } from './result-file.ts'
import { releaseSuperseded } from './superseded.ts'
import { noteJudging, notePlan, noteReport } from './validation-notes.ts'

/** As OpenAI keeps: the last three epoch ends. */
const KEPT_CHECKPOINTS = 3

const PIECE = 256 * 1024

type Saved<Type> = Extract<TrainEvent, { type: Type }>

/** Why a model was not held against how it is served. */
export interface Uncompared {
  readonly unasked?: string
}

/** The books of one claim of one job. */
export class Progress {
  readonly #stores: Stores
  readonly #lease: Lease

  constructor(stores: Stores, lease: Lease) {
    this.#stores = stores
    this.#lease = lease
  }

  /** The job as it stands; what a crash left to be released is released. */
  async job(): Promise<FineTuningJob> {
    const { id, project_id } = this.#lease
    const job = await patiently(() => findJob(this.#stores.db, project_id, id))
    if (!job) throw new Hopeless(`There is work for the job ${id}, but no such job.`)
    await this.#releaseSuperseded()
    return job
  }

  /** The files are fit: `auto` has become numbers, and the job waits for its turn. */
  planned(plan: Plan, warnings: readonly string[], forecast?: Forecast): Promise<void> {
    const { id } = this.#lease
    return this.#write((tx) => notePlan(tx, id, { plan, warnings, forecast }))
  }

  /** How far the judging of the files has come. */
  judging({ stage, rows }: Saved<'progress'>): Promise<void> {
    return this.#write((tx) => noteJudging(tx, this.#lease, { stage, rows }))
  }

  /** What the files are like, whether or not they are fit. */
  judged(report: PreflightReport): Promise<void> {
    return this.#write((tx) => noteReport(tx, this.#lease.id, report))
  }

  /** What `precision: auto` has come to, for this claim and every later one. */
  precision({
    precision,
    reason,
  }: Pick<Saved<'precision'>, 'precision' | 'reason'>): Promise<void> {
    const { id } = this.#lease
    return this.#write(async (tx) => {
      await setPrecision(tx, id, { precision, reason })
      await insertWorkEvent(tx, {
        id: newId('ftevent-'),
        work_id: id,
        dedupe_key: 'precision',
        message: `Precision: ${precision} (${reason})`,
        data: { kind: 'precision', precision, reason },
      })
    })
  }

  /** It trains, from the start or again. */
  started(): Promise<void> {
    const { id } = this.#lease
    return this.#write(async (tx) => {
      await changeJob(tx, id, 'started')
      await tell(tx, id, 'started', eventText.started())
    })
  }

  /** It was interrupted and waits for its turn again. */
  requeued(): Promise<void> {
    return this.#write(async (tx) => {
      await changeJob(tx, this.#lease.id, 'requeued')
    })
  }

  step(metrics: StepMetrics, estimated_finish: Date): Promise<void> {
    const { id } = this.#lease
    return this.#write(async (tx) => {
      await upsertStep(tx, id, metrics)
      await setEstimatedFinish(tx, id, estimated_finish)
      if (isTold(metrics.step, metrics.total_steps))
        await insertWorkEvent(tx, {
          id: newId('ftevent-'),
          work_id: id,
          dedupe_key: `step-${metrics.step}`,
          type: 'metrics',
          message: stepText(metrics),
          data: stepData(metrics),
        })
    })
  }

  /** From here on training need not go back behind this step. */
  async state({ step, state, losses }: Saved<'state'>): Promise<void> {
    const { id, project_id } = this.#lease
    await patiently(async () => {
      const staged = await this.#stores.store.stage(pieces(state))
      await keepObject(this.#stores, project_id, staged, async (tx) => {
        await holdLease(tx, this.#lease)
        await setState(tx, id, { sha256: staged.sha256, step })
        await insertRowLosses(tx, id, step, losses)
        await noteProgress(tx, this.#lease)
      })
    })
    await this.#releaseSuperseded()
  }

  /** Saves an epoch's end as a model under a name of its own; which one becomes the tuned model is settled at the end. */
  async checkpoint(job: FineTuningJob, event: Saved<'checkpoint'>): Promise<void> {
    const { id, project_id } = this.#lease
    const { step, total_steps } = event.metrics
    const best = publishes(job) === 'best' ? bestBy(job) : undefined
    const name = checkpointName(job.model_name, step)
    await patiently(async () => {
      const adapter = await this.#stores.store.stage(pieces(event.adapter))
      const config = await this.#stores.store.stage(pieces(Buffer.from(event.adapter_config)))
      await keepObjects(this.#stores, project_id, [adapter, config], async (tx) => {
        await holdLease(tx, this.#lease)
        await insertCheckpoint(tx, {
          id: newId('ftckpt_'),
          project_id,
          job_id: id,
          step_number: step,
          fine_tuned_model_checkpoint: name,
          metrics: checkpointMetrics(event.metrics),
          made_by: 'epoch',
          adapter: { sha256: adapter.sha256, config_sha256: config.sha256 },
        })
        const pruned = await pruneCheckpoints(tx, id, { count: KEPT_CHECKPOINTS, best })
        await addSuperseded(
          tx,
          id,
          pruned.flatMap((c) => [c.adapter_sha256, c.adapter_config_sha256]).filter(isString),
        )
        // The last one's name is told when it is settled.
        if (step < total_steps) await this.#tellCheckpoint(tx, step)
      })
    })
    await this.#releaseSuperseded()
  }

  async #tellCheckpoint(tx: PoolClient, step: number): Promise<void> {
    const { id } = this.#lease
    const { fine_tuned_model_checkpoint: name } = (await findCheckpointAt(tx, id, step)) ?? {}
    if (name) await tell(tx, id, `checkpoint-${step}`, eventText.checkpoint(step, name))
  }

  /** The job rests: its state, a model as it stands, and the pause itself, all at once or nothing. */
  async paused(
    job: FineTuningJob,
    stopped: Saved<'stopped'>,
    { step, state, losses }: Saved<'state'>,
  ): Promise<void> {
    const { id, project_id, lease_token } = this.#lease
    const name = checkpointName(job.model_name, step)
    await patiently(async () => {
      const { store } = this.#stores
      const saved = await store.stage(pieces(state))
      const adapter = await store.stage(pieces(stopped.adapter))
      const config = await store.stage(pieces(Buffer.from(stopped.adapter_config)))
      await keepObjects(this.#stores, project_id, [saved, adapter, config], async (tx) => {
        await holdLease(tx, this.#lease)
        await setState(tx, id, { sha256: saved.sha256, step })
        await insertRowLosses(tx, id, step, losses)
        // Before the first step there is nothing that the base model is not.
        const metrics = await findStep(tx, id, step)
        if (metrics) {
          await insertCheckpoint(tx, {
            id: newId('ftckpt_'),
            project_id,
            job_id: id,
            step_number: step,
            fine_tuned_model_checkpoint: name,
            metrics: checkpointMetrics(metrics),
            made_by: 'pause',
            adapter: { sha256: adapter.sha256, config_sha256: config.sha256 },
          })
          await tell(tx, id, `checkpoint-${step}`, eventText.checkpoint(step, name))
        } else await addSuperseded(tx, id, [adapter.sha256, config.sha256])
        if (!(await changeJob(tx, id, 'paused')))
          throw new Hopeless(`The job ${id} is not running and cannot be paused.`)
        await tell(tx, id, `paused-${lease_token}`, eventText.paused())
        await pauseWork(tx, this.#lease)
      })
    })
    await this.#releaseSuperseded()
  }

  /** What the eval of an epoch's end came to. */
  scored({ step, run_id, ...metrics }: EvalScore, eval_id: string): Promise<void> {
    const { id } = this.#lease
    return this.#write(async (tx) => {
      await addEvalScore(tx, id, { step, run_id, ...metrics })
      await addMetrics(tx, { job_id: id, step_number: step }, metrics)
      await insertWorkEvent(tx, {
        id: newId('ftevent-'),
        work_id: id,
        dedupe_key: `eval-${step}`,
        message: eventText.scored(step, metrics.eval_score),
        data: { kind: 'eval', step, eval_id, run_id, ...metrics },
      })
      await noteProgress(tx, this.#lease)
    })
  }

  /** Training has ended: the checkpoint that is to become the model, or why it must not. */
  async chosen(
    job: FineTuningJob,
    { step }: Pick<Saved<'done'>, 'step'>,
  ): Promise<{ chosen: PublishedCheckpoint } | { refused: JobFailure }> {
    const chosen = await patiently(() => publishedCheckpoint(this.#stores.db, job, step))
    const refused = regressionOf(job, chosen)
    return refused ? { refused } : { chosen }
  }

  /** Gives the tuned model's name to the checkpoint that is published; all others stay as they are then. */
  publish(job: FineTuningJob, { step }: Pick<Saved<'done'>, 'step'>): Promise<void> {
    const { id } = this.#lease
    return this.#write(async (tx) => {
      const chosen = await publishedCheckpoint(tx, job, step)
      if (chosen.fine_tuned_model_checkpoint !== job.model_name)
        await renameCheckpoint(tx, chosen.id, job.model_name)
      await this.#tellCheckpoint(tx, step)
      if (chosen.step_number === step) return
      const last = await findStep(tx, id, step)
      await insertWorkEvent(tx, {
        id: newId('ftevent-'),
        work_id: id,
        dedupe_key: 'published',
        ...publishedText(chosen, last, scoreAt(job, step)),
      })
    })
  }

  /** Everything is there: the model, its result file, the end of the job. */
  async succeeded(
    job: FineTuningJob,
    { step, trained_tokens }: Saved<'done'>,
    compared: { certificate: Certificate } | Uncompared,
  ): Promise<void> {
    const { id, project_id } = this.#lease
    await patiently(async () => {
      const steps = await listSteps(this.#stores.db, id)
      const csv = Buffer.from(resultCsv(steps, methodOf(job.method.type).columns))
      const staged = await this.#stores.store.stage(pieces(csv))
      await keepObject(this.#stores, project_id, staged, async (tx) => {
        await holdLease(tx, this.#lease)
        const published = await publishedCheckpoint(tx, job, step)
        const { id: result_file } = await insertFile(tx, {
          id: newId('file-'),
          project_id,
          sha256: staged.sha256,
          bytes: staged.bytes,
          filename: 'step_metrics.csv',
          purpose: 'fine-tune-results',
          status: 'processed',
          status_details: null,
          expires_after_seconds: null,
        })
        await insertModel(tx, {
          id: job.model_name,
          project_id,
          job_id: id,
          parent: job.model,
          root: job.root,
          adapter_sha256: published.adapter_sha256,
          adapter_config_sha256: published.adapter_config_sha256,
          parity: 'certificate' in compared ? compared.certificate : null,
        })
        await setResult(tx, id, {
          fine_tuned_model: job.model_name,
          result_files: [result_file],
          trained_tokens,
        })
        if (!(await changeJob(tx, id, 'succeeded')))
          throw new Hopeless(`The job ${id} is not running and cannot succeed.`)
        if ('unasked' in compared && compared.unasked)
          await insertWorkEvent(tx, {
            id: newId('ftevent-'),
            work_id: id,
            dedupe_key: 'uncompared',
            level: 'warn',
            message: eventText.uncompared(compared.unasked),
          })
        await tell(tx, id, 'model', eventText.modelCreated(job.model_name))
        await tell(tx, id, 'succeeded', eventText.succeeded())
        await endWork(tx, this.#lease)
      })
    })
    await this.#releaseSuperseded()
  }

  /** Training has ended, and no model comes of it; the checkpoints stay under their own names. */
  async unpublished({ step }: Pick<Saved<'done'>, 'step'>, failure: JobFailure): Promise<void> {
    await this.#write((tx) => this.#tellCheckpoint(tx, step))
    await this.failed(failure)
  }

  /** The job ends as failed, and says why. */
  async failed({ error, errors }: JobFailure): Promise<void> {
    const { id } = this.#lease
    await this.#write(async (tx) => {
      await changeJob(tx, id, 'failed')
      await setError(tx, id, error)
      await tellFailure(tx, id, { ...error, errors })
      await endWork(tx, this.#lease)
    })
    await this.#releaseSuperseded()
  }

  #write<T>(body: (tx: PoolClient) => Promise<T>): Promise<T> {
    return whileHeld(this.#stores.db, this.#lease, body)
  }

  #releaseSuperseded(): Promise<void> {
    return releaseSuperseded(this.#stores, this.#lease.project_id, this.#lease.id)
  }
}

const scoreAt = ({ eval_scores }: FineTuningJob, step: number): number | undefined =>
  eval_scores.find((score) => score.step === step)?.eval_score

/** In pieces: hashing a large state in one go would keep the thread from answering requests. */
async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let from = 0; from < bytes.length; from += PIECE) yield bytes.subarray(from, from + PIECE)
}

const isString = (value: string | null): value is string => value !== null
