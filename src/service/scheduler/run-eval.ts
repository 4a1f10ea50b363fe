// One run of an eval, from its rows to its counts: asks the model, has the answers graded, keeps what is done. Taken
// up again it goes on with the rows that are not.

import { setMaxListeners } from 'node:events'
import type { Item } from '../../engine/eval/items.ts'
import type { PromptMessage } from '../../engine/eval/prompt.ts'
import { ApiError, invalidRequest } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { doneItems, insertOutputItems } from '../db/eval-output-items.ts'
import {
  type EvalRun,
  endEvalRun,
  setRunFewShot,
  setRunTotal,
  startEvalRun,
} from '../db/eval-runs.ts'
import { type Eval, findEval } from '../db/evals.ts'
import type { PoolClient } from '../db/pool.ts'
import { endWork, type Lease, LeaseLost, noteProgress } from '../db/work.ts'
import { type DataSource, samplingOf, schemaOf } from '../evals/data.ts'
import { Grading, GradingStopped } from '../evals/grading.ts'
import { localFile } from '../storage/local-file.ts'
import { objectKey } from '../storage/object-store.ts'
import type { Stores } from '../storage/objects.ts'
import { failureOf } from '../work/failure.ts'
import { whileHeld } from '../work/held.ts'
import type { Outcome } from '../work/kind.ts'
import { Hopeless, patiently } from '../work/patience.ts'
import { Asking, type AskingDeps, Usage } from './asking.ts'
import { Evaluator, type Finished, subjectOf } from './evaluator.ts'
import { fitExamples, MOST_EXAMPLES } from './few-shot.ts'
import { openSampler, type Sampler } from './sampler.ts'
import { openWeights, type WeightsDeps } from './weights-of-run.ts'

export interface RunEvalDeps extends AskingDeps, WeightsDeps {
  models: AskingDeps['models'] & WeightsDeps['models']
  serving: AskingDeps['serving'] & WeightsDeps['serving']
  stores: Stores
  log: Logger
}

/** Rows under way at once: they are decoded together. */
const AT_ONCE = 16
/** Rows that are kept in one transaction. */
const KEPT_AT_ONCE = 8

/** Runs it from where it stands. Throws `LeaseLost` when it is not ours any more. */
export async function runEval(
  deps: RunEvalDeps,
  lease: Lease,
  signal: AbortSignal,
): Promise<Outcome> {
  try {
    return await new Run(deps, lease, signal).toEnd()
  } catch (error) {
    if (signal.aborted && signal.reason instanceof LeaseLost) throw signal.reason
    if (error instanceof LeaseLost) throw error
    if (signal.aborted) return { type: 'stopped' }
    // A server that was too busy for long is no mistake of the run's.
    if (error instanceof ApiError && error.status >= 500)
      throw new Error(error.message, { cause: error })
    throw error
  }
}

/** Ends the run as failed and says why. */
export const failEval = async (stores: Stores, lease: Lease, cause: unknown): Promise<void> => {
  const { code, message } = failureOf(cause, 'run')
  await whileHeld(stores.db, lease, async (tx) => {
    await endEvalRun(tx, lease.id, 'failed', { code, message })
    await endWork(tx, lease)
  })
}

class Run {
  readonly #deps: RunEvalDeps
  readonly #lease: Lease
  readonly #signal: AbortSignal

  constructor(deps: RunEvalDeps, lease: Lease, signal: AbortSignal) {
    this.#deps = deps
    this.#lease = lease
    this.#signal = signal
    // Every row under way listens.
    setMaxListeners(0, signal)
  }

  async toEnd(): Promise<Outcome> {
    const { stores, log } = this.#deps
    const { id, project_id } = this.#lease
    const run = await this.#write((tx) => startEvalRun(tx, id))
    if (!run) throw new Hopeless(`There is work for the run ${id}, which has ended.`)
    const one = await findEval(stores.db, project_id, run.eval_id)
    if (!one) throw new LeaseLost(id)
    log.info({ run: id, eval: one.id }, 'eval run started')
    await using file = await this.#file(run.items_sha256)
    // Two threads, so that a grader that never ends takes no rows with it.
    await using reading = new Grading()
    await using grading = new Grading()

    const source = run.data_source as unknown as DataSource
    const rows = await this.#countRows(run, { path: file.path, one, reading })
    const asking = new Asking(this.#deps, project_id)
    {
      await using asked = await openWeights(this.#deps, run)
      const params = samplingOf(source)
      const signal = this.#signal
      const sampler =
        asked.model &&
        (await openSampler(this.#deps, asking, { model: asked.model, params, signal }))
      const few_shot =
        run.few_shot?.messages ??
        (await this.#chooseExamples(run, { sampler, grading, rows, source }))
      const evaluator = new Evaluator({
        run,
        source,
        graders: one.testing_criteria,
        grading,
        asking,
        sampler,
        examples: few_shot,
        signal,
      })
      const done = await doneItems(stores.db, id)
      await this.#overRows(reading.readItems(file.path, schemaOf(one), 0), done, evaluator)
    }
    await this.#write(async (tx) => {
      await endEvalRun(tx, id, 'completed')
      await endWork(tx, this.#lease)
    })
    log.info({ run: id }, 'eval run completed')
    return { type: 'ended' }
  }

  /** Reads every row once, before the first is graded; returns the row with the most text. */
  async #countRows(
    run: EvalRun,
    { path, one, reading }: { path: string; one: Eval; reading: Grading },
  ): Promise<{ longest: Item }> {
    let total = 0
    let [longest, most]: [Item | undefined, number] = [undefined, -1]
    try {
      for await (const read of reading.readItems(path, schemaOf(one), 0)) {
        this.#signal.throwIfAborted()
        if ('error' in read)
          throw invalidRequest(`Line ${read.line} of the file: ${read.error}.`, {
            code: 'invalid_item',
          })
        total++
        const { length } = JSON.stringify(read.item)
        if (length > most) [longest, most] = [read.item, length]
      }
    } catch (error) {
      if (!(error instanceof GradingStopped)) throw error
      throw invalidRequest(
        `Row ${total + 1} cannot be held against the eval's schema: ${error.message}`,
        { code: 'invalid_item' },
      )
    }
    if (!longest) throw invalidRequest('The file has no rows.', { code: 'invalid_item' })
    if (run.total === null) await this.#write((tx) => setRunTotal(tx, run.id, total))
    return { longest }
  }

  /** Once a run: taken up again, it goes on with the same examples. */
  async #chooseExamples(
    run: EvalRun,
    {
      sampler,
      grading,
      rows,
      source,
    }: {
      sampler: Sampler | undefined
      grading: Grading
      rows: { longest: Item }
      source: DataSource
    },
  ): Promise<PromptMessage[]> {
    const wanted = run.luthier?.few_shot
    if (!wanted || !sampler || run.few_shot_sha256 === null || !source.input_messages) return []
    const limit = wanted.examples === 'auto' ? MOST_EXAMPLES : wanted.examples
    await using file = await this.#file(run.few_shot_sha256)
    const found = await grading.examples(file.path, limit, samplingOf(source).seed)
    if (found.length === 0)
      throw invalidRequest(
        'The file of examples has no row with an input and an output: expected messages, prompt and completion, or text and label.',
        { param: 'luthier.few_shot.file_id', code: 'invalid_file' },
      )
    const prompt = await grading.prompt(source.input_messages, subjectOf(rows.longest))
    if ('fault' in prompt) throw invalidRequest(prompt.message, { code: 'invalid_item' })
    const few_shot = await fitExamples(
      found.map(({ messages }) => messages),
      prompt,
      { wanted, sampler, signal: this.#signal },
    )
    await this.#write((tx) => setRunFewShot(tx, run.id, few_shot))
    this.#deps.log.info({ run: run.id, examples: few_shot.examples }, 'examples chosen')
    return few_shot.messages
  }

  /** Several rows at once; what is done is kept in between, so that little is done again after a crash. */
  async #overRows(
    rows: AsyncIterable<{ index: number; item: Item } | { index: number; error: string }>,
    done: ReadonlySet<number>,
    evaluator: Evaluator,
  ): Promise<void> {
    const finished: Finished[] = []
    const running = new Set<Promise<void>>()
    let failure: { error: unknown } | undefined
    try {
      for await (const row of rows) {
        if ('error' in row || done.has(row.index)) continue
        const working = evaluator
          .evaluate(row.index, row.item)
          .then(
            (one) => void finished.push(one),
            (error: unknown) => {
              failure ??= { error }
            },
          )
          .finally(() => running.delete(working))
        running.add(working)
        if (running.size >= AT_ONCE) await Promise.race(running)
        if (failure || this.#signal.aborted) break
        if (finished.length >= KEPT_AT_ONCE) await this.#keep(finished.splice(0))
      }
    } finally {
      await Promise.all(running)
      if (finished.length > 0) await this.#keep(finished.splice(0))
    }
    if (failure) throw failure.error
    this.#signal.throwIfAborted()
  }

  async #keep(finished: readonly Finished[]): Promise<void> {
    const usage = new Usage()
    for (const one of finished) usage.join(one.usage)
    const items = finished.map(({ item }) => item)
    await this.#write(async (tx) => {
      await insertOutputItems(tx, this.#lease.id, items, usage.by_model)
      await noteProgress(tx, this.#lease)
    })
  }

  #file(sha256: string) {
    const key = objectKey(this.#lease.project_id, sha256)
    return patiently(() => localFile(this.#deps.stores.store, key))
  }

  #write<T>(body: (tx: PoolClient) => Promise<T>): Promise<T> {
    return whileHeld(this.#deps.stores.db, this.#lease, body)
  }
}
