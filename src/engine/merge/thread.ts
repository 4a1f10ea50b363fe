// The entry of the thread that a service merges in: it checks a merge, or does it, with threads of its own.

import { serve } from '../runtime/thread.ts'
import type { MergeRequest } from './merge.ts'
import { parseRequested, settled } from './requested.ts'
import { checkRequested, type RunEvent, runRequested } from './run.ts'
import type { Choice } from './search-points.ts'

export interface MergeThreadRequest extends Omit<MergeRequest, 'config'> {
  readonly search?: { readonly rows: string; readonly cache: string }
  /** Whether it is looked at only. */
  readonly only_check: boolean
  /** As it was sent: a method does not cross to a thread. */
  readonly config: unknown
  /** What its search is to be left with, where it goes by an eval. */
  readonly choice?: Choice
}

export type MergeThreadEvent = RunEvent | { type: 'checked'; tensors: number; bytes: number }

serve<MergeThreadRequest, MergeThreadEvent>(async function* (
  { only_check, config, choice, ...request },
  context,
) {
  const requested = parseRequested(config)
  if (only_check) yield { type: 'checked', ...(await checkRequested(requested, request.models)) }
  else yield* runRequested(choice ? settled(requested, choice) : requested, request, context)
})
