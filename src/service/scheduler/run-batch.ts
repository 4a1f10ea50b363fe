// A batch from its first line to its files: asks for every line what a client would have asked over HTTP, and keeps the
// answers one by one. Taken up again it goes on with the lines that have none.

import { setTimeout as sleep } from 'node:timers/promises'
import { isDiskFull, noRoom } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { type BatchRequest, checkRequests, readRequests } from '../batches/requests.ts'
import {
  answeredLines,
  type Batch,
  type BatchAnswer,
  endBatch,
  finalizeBatch,
  findBatch,
  insertBatchAnswers,
  type LineError,
  listBatchAnswers,
  startBatch,
} from '../db/batches.ts'
import { insertFile } from '../db/files.ts'
import type { PoolClient } from '../db/pool.ts'
import { endWork, holdLease, type Lease, LeaseLost, noteProgress } from '../db/work.ts'
import { newId } from '../ids.ts'
import { localFile } from '../storage/local-file.ts'
import { objectKey, type Staged } from '../storage/object-store.ts'
import { keepObjects, releaseObject, type Stores } from '../storage/objects.ts'
import { failureOf } from '../work/failure.ts'
import { whileHeld } from '../work/held.ts'
import { type Outcome, WorkPauses } from '../work/kind.ts'
import { Hopeless, patiently } from '../work/patience.ts'

/** What a client would have been answered. */
export interface HttpAnswer {
  status_code: number
  request_id: string
  body: unknown
}

/** Answers a request of a project as the API does over HTTP, by the same code, but behind all others. */
export type AnswerRequest = (
  request: { project_id: string; url: string; body: object },
  signal: AbortSignal,
) => Promise<HttpAnswer>

export interface RunBatchDeps {
  stores: Stores
  answer: AnswerRequest
  log: Logger
}

/** Lines under way at once; half of what one base model decodes together. */
const AT_ONCE = 8
/** Lines that are written off in one statement. */
const WRITTEN_OFF_AT_ONCE = 500
/** Lines of a file that are read from the table at once. */
const READ_AT_ONCE = 200
/** How long a line is tried that meets a server which cannot answer. */
const AWAY_SECONDS = 600

/** Works on it from where it stands. Throws `LeaseLost` when it is not ours any more. */
export async function runBatch(
  deps: RunBatchDeps,
  lease: Lease,
  signal: AbortSignal,
): Promise<Outcome> {
  try {
    return await new Run(deps, lease, signal).toEnd()
  } catch (error) {
    if (signal.aborted && signal.reason instanceof LeaseLost) throw signal.reason
    if (!signal.aborted || signal.reason instanceof WorkPauses || error instanceof LeaseLost)
      throw error
    return { type: 'stopped' }
  }
}

/** Ends the batch as failed and says why; the answers that there are come into its files, if that can be. */
export async function failBatch(deps: RunBatchDeps, lease: Lease, cause: unknown): Promise<void> {
  const errors = [{ ...failureOf(cause, 'batch'), line: null }]
  const { stores, log } = deps
  const batch = await patiently(() => findBatch(stores.db, lease.project_id, lease.id))
  if (!batch) throw new Hopeless(`There is no batch ${lease.id}.`)
  try {
    await publish(deps, lease, { batch, status: 'failed', errors })
  } catch (err) {
    if (err instanceof LeaseLost) throw err
    log.error({ batch: lease.id, err }, 'the answers of a failed batch cannot be published')
    await whileHeld(stores.db, lease, async (tx) => {
      await endBatch(tx, lease.id, { status: 'failed', errors })
      await endWork(tx, lease)
    })
  }
}

class Run {
  readonly #deps: RunBatchDeps
  readonly #lease: Lease
  readonly #signal: AbortSignal

  constructor(deps: RunBatchDeps, lease: Lease, signal: AbortSignal) {
    this.#deps = deps
    this.#lease = lease
    this.#signal = signal
  }

  async toEnd(): Promise<Outcome> {
    const { stores, log } = this.#deps
    const { id, project_id } = this.#lease
    const batch = await patiently(() => findBatch(stores.db, project_id, id))
    const sha256 = batch?.input_sha256
    if (!batch || !sha256) throw new Hopeless(`There is work for the batch ${id}, but no input.`)
    await using file = await patiently(() => localFile(stores.store, objectKey(project_id, sha256)))
    log.info({ batch: id, endpoint: batch.endpoint }, 'batch started')

    if (batch.status === 'validating') {
      const { errors, ...checked } = await checkRequests(file.path, batch.endpoint)
      if (errors.length > 0) return this.#publish({ batch, status: 'failed', errors })
      await this.#write((tx) => startBatch(tx, id, checked))
    }
    const way =
      batch.status === 'cancelling' ? 'cancelled' : await this.#answerAll(batch, file.path)
    const last = await this.#write((tx) => finalizeBatch(tx, id))
    const status = last.status === 'cancelling' ? 'cancelled' : way
    // Where it was cancelled before its lines were checked, nothing is known of them.
    if (status !== 'completed' && last.total > 0) await this.#writeOff(last, file.path, status)
    return this.#publish({ batch: last, status })
  }

  /** Several lines at once; each answer is kept as soon as it is there. */
  async #answerAll(batch: Batch, path: string): Promise<'completed' | 'expired' | 'cancelled'> {
    const done = await patiently(() => answeredLines(this.#deps.stores.db, batch.id))
    const late = AbortSignal.timeout(Math.max(0, batch.expires_at.getTime() - Date.now()))
    const signal = AbortSignal.any([this.#signal, late])
    const answers: BatchAnswer[] = []
    const running = new Set<Promise<void>>()
    let failure: { error: unknown } | undefined
    let isLeft = false
    try {
      for await (const request of readRequests(path, batch.endpoint)) {
        if (done.has(request.line)) continue
        isLeft = failure !== undefined || signal.aborted
        if (isLeft) break
        const working = this.#answer(batch, request, signal)
          .then(
            (answer) => void answers.push(answer),
            (error: unknown) => {
              failure ??= { error }
            },
          )
          .finally(() => running.delete(working))
        running.add(working)
        if (running.size >= AT_ONCE) await Promise.race(running)
        if (answers.length > 0) await this.#keep(answers.splice(0))
      }
    } finally {
      // While some are written, others come.
      while (running.size > 0 || answers.length > 0) {
        if (answers.length > 0) await this.#keep(answers.splice(0))
        else await Promise.race(running)
      }
    }
    // Every line has its answer, whatever was asked meanwhile.
    if (!failure && !isLeft) return 'completed'
    if (!signal.aborted) throw failure?.error
    if (!this.#signal.aborted) return 'expired'
    if (this.#signal.reason instanceof WorkPauses) return 'cancelled'
    throw this.#signal.reason
  }

  /** What a client would have been told; while the server is full, it waits. */
  async #answer(
    batch: Batch,
    { line, custom_id, body }: BatchRequest,
    signal: AbortSignal,
  ): Promise<BatchAnswer> {
    const { project_id, endpoint } = batch
    const end = Date.now() + AWAY_SECONDS * 1000
    for (let pause = 200; ; pause = Math.min(pause * 2, 5000)) {
      const response = await this.#deps.answer({ project_id, url: endpoint, body }, signal)
      const { status_code } = response
      signal.throwIfAborted()
      if (status_code === 429 || (status_code === 503 && Date.now() < end)) {
        await sleep(pause, undefined, { signal })
        continue
      }
      const failed = status_code >= 400
      const answer = answerLine(custom_id, { response, error: null })
      return { line, failed, answer, ...usageOf(response.body) }
    }
  }

  /** Lines that nobody will answer any more. */
  async #writeOff(batch: Batch, path: string, status: 'expired' | 'cancelled'): Promise<void> {
    const error =
      status === 'expired'
        ? {
            code: 'batch_expired',
            message: 'This request could not be executed before the completion window expired.',
          }
        : {
            code: 'batch_cancelled',
            message: 'The batch was cancelled before this request was executed.',
          }
    const done = await patiently(() => answeredLines(this.#deps.stores.db, batch.id))
    let lines: BatchAnswer[] = []
    for await (const { line, custom_id } of readRequests(path, batch.endpoint)) {
      if (done.has(line)) continue
      const answer = answerLine(custom_id, { response: null, error })
      lines.push({ line, failed: true, answer, ...NO_TOKENS })
      if (lines.length < WRITTEN_OFF_AT_ONCE) continue
      await this.#keep(lines)
      lines = []
    }
    if (lines.length > 0) await this.#keep(lines)
  }

  #keep(answers: readonly BatchAnswer[]): Promise<void> {
    return this.#write(async (tx) => {
      await insertBatchAnswers(tx, this.#lease.id, answers)
      await noteProgress(tx, this.#lease)
    })
  }

  async #publish(end: End): Promise<Outcome> {
    await publish(this.#deps, this.#lease, end)
    this.#deps.log.info({ batch: this.#lease.id, status: end.status }, 'batch ended')
    return { type: 'ended' }
  }

  #write<T>(body: (tx: PoolClient) => Promise<T>): Promise<T> {
    return whileHeld(this.#deps.stores.db, this.#lease, body)
  }
}

interface End {
  batch: Batch
  status: 'completed' | 'expired' | 'cancelled' | 'failed'
  errors?: readonly LineError[]
}

/** Makes files of the answers and ends the batch: all of it, or nothing. */
async function publish(deps: RunBatchDeps, lease: Lease, end: End): Promise<void> {
  const { stores, log } = deps
  const { batch, status, errors } = end
  const { id, project_id } = batch
  const files: { staged: Staged; failed: boolean; file_id: string }[] = []
  try {
    for (const failed of [false, true]) {
      const [first] = await patiently(() => page(stores, id, failed, 0, 1))
      if (!first) continue
      const staged = await stage(stores, () => answersOf(stores, id, failed))
      files.push({ staged, failed, file_id: newId('file-') })
    }
    const write = async (tx: PoolClient) => {
      await holdLease(tx, lease)
      for (const { staged, failed, file_id } of files)
        await insertFile(tx, {
          id: file_id,
          project_id,
          filename: `${id}_${failed ? 'error' : 'output'}.jsonl`,
          purpose: 'batch_output',
          status: 'processed',
          status_details: null,
          sha256: staged.sha256,
          bytes: staged.bytes,
          expires_after_seconds: batch.output_expires_after_seconds,
        })
      await endBatch(tx, id, {
        status,
        ...(errors && { errors }),
        output_file_id: files.find(({ failed }) => !failed)?.file_id,
        error_file_id: files.find(({ failed }) => failed)?.file_id,
      })
      await endWork(tx, lease)
    }
    await keepObjects(
      stores,
      project_id,
      files.map(({ staged }) => staged),
      write,
    )
  } catch (error) {
    for (const { staged } of files) await staged.discard()
    throw error
  }
  if (batch.input_sha256 !== null)
    await releaseObject(stores, { project_id, sha256: batch.input_sha256 }).catch((err: unknown) =>
      log.warn({ batch: id, err }, 'the input of a batch could not be released'),
    )
}

const stage = (stores: Stores, body: () => AsyncIterable<Uint8Array>): Promise<Staged> =>
  patiently(() =>
    stores.store.stage(body()).catch((error: unknown) => {
      throw isDiskFull(error)
        ? noRoom('The answers cannot be stored: there is no more room for files on the disk')
        : error
    }),
  )

const page = (stores: Stores, id: string, failed: boolean, after: number, limit: number) =>
  listBatchAnswers(stores.db, id, { failed, after, limit })

/** The file of those that were answered, or of the others. */
async function* answersOf(stores: Stores, id: string, failed: boolean): AsyncGenerator<Uint8Array> {
  for (let after = 0; ; ) {
    const answers = await page(stores, id, failed, after, READ_AT_ONCE)
    if (answers.length === 0) return
    yield Buffer.from(answers.map(({ answer }) => `${answer}\n`).join(''))
    after = answers.at(-1)!.line
  }
}

const answerLine = (
  custom_id: string,
  answer: { response: HttpAnswer | null; error: { code: string; message: string } | null },
): string => JSON.stringify({ id: newId('batch_req_'), custom_id, ...answer })

const NO_TOKENS = { input_tokens: 0, cached_tokens: 0, output_tokens: 0 }

/** Tokens that an answer says it took, in the words of whichever endpoint. */
function usageOf(body: unknown): typeof NO_TOKENS {
  const { usage } = (body ?? {}) as { usage?: Record<string, unknown> }
  if (!usage) return NO_TOKENS
  const count = (...names: string[]) =>
    names.map((name) => usage[name]).find((value) => typeof value === 'number') ?? 0
  const details = (usage.prompt_tokens_details ?? usage.input_tokens_details ?? {}) as {
    cached_tokens?: number
  }
  return {
    input_tokens: count('prompt_tokens', 'input_tokens') as number,
    cached_tokens: details.cached_tokens ?? 0,
    output_tokens: count('completion_tokens', 'output_tokens') as number,
  }
}
