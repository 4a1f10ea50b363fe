// The thread that a merge works in, and what of its errors may be told.

import type { MergeThreadEvent, MergeThreadRequest } from '../../engine/merge/thread.ts'
import type { Thread } from '../../engine/runtime/thread.ts'
import { Hopeless } from '../work/patience.ts'
import { askThread } from './ask-thread.ts'

/** Merging itself failed: what it says names files and tensors, and may be told; trying again changes nothing. */
export class MergeFault extends Hopeless {}

export interface MergingContext {
  thread: Thread<MergeThreadRequest, MergeThreadEvent>
  signal: AbortSignal
  /** What a message says of files, without the folders of this machine. */
  told: (message: string) => string
}

/** What the thread yields; throws a MergeFault where merging fails. */
export const mergeInThread = (
  request: MergeThreadRequest,
  { thread, signal, told }: MergingContext,
): AsyncGenerator<MergeThreadEvent, void, undefined> =>
  askThread(thread, request, { signal, fault: (message) => new MergeFault(told(message)) })
