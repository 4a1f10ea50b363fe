// The entry of the thread that a service merges in: it checks a merge, or does it, with threads of its own.

import { serve } from '../runtime/thread.ts'
import { parseMergeConfig } from './config.ts'
import { type MergeEvent, type MergeRequest, merge, prepareMerge } from './merge.ts'

export interface MergeThreadRequest extends Omit<MergeRequest, 'config'> {
  /** Whether it is looked at only. */
  readonly only_check: boolean
  /** As it was sent: a method does not cross to a thread. */
  readonly config: unknown
}

export type MergeThreadEvent = MergeEvent | { type: 'checked'; tensors: number; bytes: number }

serve<MergeThreadRequest, MergeThreadEvent>(async function* (
  { only_check, config, ...request },
  { signal },
) {
  const asked = { ...request, config: parseMergeConfig(config) }
  if (!only_check) return yield* merge(asked, signal)
  const { tensors, shards } = await prepareMerge(asked)
  const bytes = shards.reduce((sum, shard) => sum + shard.bytes, 0)
  yield { type: 'checked', tensors: tensors.length, bytes }
})
