// The training thread of a job: asked, told apart from our own errors, renewed.

import type { Thread } from '../../engine/runtime/thread.ts'
import type { TrainEvent, TrainThreadRequest } from '../../engine/train/request.ts'
import { askThread } from './ask-thread.ts'

export type TrainingThread = Thread<TrainThreadRequest, TrainEvent>

/** Training itself failed: what it says names files, tensors and numbers, and may be told. */
export class TrainingFault extends Error {
  override readonly name = 'TrainingFault'
}

/** One thread at a time; ended, it gives its memory back. */
export class TrainingThreads implements AsyncDisposable {
  readonly #spawn: () => TrainingThread
  #thread: TrainingThread | undefined

  constructor(spawn: () => TrainingThread) {
    this.#spawn = spawn
  }

  get current(): TrainingThread {
    this.#thread ??= this.#spawn()
    return this.#thread
  }

  /** Ends the current one; the next is another. */
  async end(): Promise<void> {
    const thread = this.#thread
    this.#thread = undefined
    await thread?.[Symbol.asyncDispose]()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end()
  }
}

/** What the thread yields; throws a TrainingFault where training fails. */
export const ask = (
  thread: TrainingThread,
  request: TrainThreadRequest,
  signal: AbortSignal,
): AsyncGenerator<TrainEvent, void, undefined> =>
  askThread(thread, request, {
    signal,
    fault: (message, cause) => new TrainingFault(message, { cause }),
  })
