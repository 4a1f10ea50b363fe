// Does what is asked for, whichever of the three it is.

import { makeAdapter, planAdapter } from './adapters.ts'
import { type MergeEvent, type MergeRequest, merge, prepareMerge } from './merge.ts'
import type { Requested } from './requested.ts'

type Rest = Omit<MergeRequest, 'config'>

/** How much there is to do; throws what is wrong, before any work. */
export async function checkRequested(
  requested: Requested,
  models: Rest['models'],
): Promise<{ tensors: number; bytes: number }> {
  if (requested.kind !== 'models') {
    const { modules, bytes } = await planAdapter({ config: requested, models })
    return { tensors: modules.length, bytes }
  }
  const { tensors, shards } = await prepareMerge({ config: requested.merge, models })
  return { tensors: tensors.length, bytes: shards.reduce((sum, { bytes }) => sum + bytes, 0) }
}

export const runRequested = (
  requested: Requested,
  request: Rest,
  signal?: AbortSignal,
): AsyncGenerator<MergeEvent, void, undefined> =>
  requested.kind === 'models'
    ? merge({ ...request, config: requested.merge }, signal)
    : makeAdapter({ ...request, config: requested }, signal)
