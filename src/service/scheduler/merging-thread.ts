// The thread that a merge works in, and what of its errors may be told.

import type { MergeThreadEvent, MergeThreadRequest } from '../../engine/merge/thread.ts'
import type { Thread } from '../../engine/runtime/thread.ts'
import { ApiError } from '../../errors.ts'
import { Hopeless } from '../work/patience.ts'

/** Merging itself failed: what it says names files and tensors, and may be told; trying again changes nothing. */
export class MergeFault extends Hopeless {}

export interface MergingContext {
  thread: Thread<MergeThreadRequest, MergeThreadEvent>
  signal: AbortSignal
  /** What a message says of files, without the folders of this machine. */
  told: (message: string) => string
}

/** What the thread yields; what it throws is told apart from our own errors. */
export async function* mergeInThread(
  request: MergeThreadRequest,
  { thread, signal, told }: MergingContext,
): AsyncGenerator<MergeThreadEvent, void, undefined> {
  const events = thread.run(request, signal)
  try {
    while (true) {
      let next: IteratorResult<MergeThreadEvent, void>
      try {
        next = await events.next()
      } catch (cause) {
        if (cause instanceof ApiError || signal.aborted) throw cause
        throw new MergeFault(told(cause instanceof Error ? cause.message : String(cause)))
      }
      if (next.done) return
      yield next.value
    }
  } finally {
    await events.return()
  }
}
