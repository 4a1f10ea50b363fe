// The entry of the thread that a service merges in: it checks a merge, or does it, with threads of its own.

import { serve } from '../runtime/thread.ts'
import type { MergeRequest } from './merge.ts'
import { parseRequested } from './requested.ts'
import { checkRequested, type RunEvent, runRequested } from './run.ts'

export interface MergeThreadRequest extends Omit<MergeRequest, 'config'> {
  readonly search?: { readonly rows: string; readonly cache: string }
  /** Whether it is looked at only. */
  readonly only_check: boolean
  /** As it was sent: a method does not cross to a thread. */
  readonly config: unknown
}

export type MergeThreadEvent = RunEvent | { type: 'checked'; tensors: number; bytes: number }

serve<MergeThreadRequest, MergeThreadEvent>(async function* (
  { only_check, config, ...request },
  context,
) {
  const requested = parseRequested(config)
  if (only_check) yield { type: 'checked', ...(await checkRequested(requested, request.models)) }
  else yield* runRequested(requested, request, context)
})
