// Does what is asked for, whichever of the three it is.

import type { HandlerContext } from '../runtime/thread.ts'
import { makeAdapter, planAdapter } from './adapters.ts'
import { keyOf } from './config.ts'
import { type MergeEvent, type MergeRequest, merge, prepareMerge } from './merge.ts'
import { type Requested, searchedIn, settled } from './requested.ts'
import type { Candidate, Choice, Searched } from './search-points.ts'

interface Rest extends Omit<MergeRequest, 'config'> {
  /** For a search: its rows, and a folder for converted weights. */
  readonly search?: { readonly rows: string; readonly cache: string }
}

/** What a search tells of itself, besides what a merge does. */
export type RunEvent = MergeEvent | ({ type: 'candidate' } & Candidate)

/** How much there is to do; throws what is wrong, before any work. */
export async function checkRequested(
  requested: Requested,
  models: Rest['models'],
): Promise<{ tensors: number; bytes: number }> {
  const search = searchedIn(requested)?.search
  // Only a search needs what computes.
  const asked = search && { search, ...(await import('./asked.ts')) }
  if (requested.kind !== 'models') {
    const plan = await planAdapter({ config: requested, models })
    if (asked)
      asked.checkSearch(
        asked.search,
        await asked.answersOfAdapter(plan, basePath(requested, models)),
      )
    return { tensors: plan.modules.length, bytes: plan.bytes }
  }
  const plan = await prepareMerge({ config: requested.merge, models })
  asked?.checkSearch(asked.search, asked.answersOfModel(plan))
  const { tensors, shards } = plan
  return { tensors: tensors.length, bytes: shards.reduce((sum, { bytes }) => sum + bytes, 0) }
}

export async function* runRequested(
  requested: Requested,
  request: Rest,
  { signal = new AbortController().signal, turn = atOnce }: Partial<HandlerContext> = {},
): AsyncGenerator<RunEvent, void, undefined> {
  const searched = searchedIn(requested)
  const plain = searched
    ? settled(requested, yield* chosen(requested, { searched, request }, { signal, turn }))
    : requested
  if (plain.kind === 'models') yield* merge({ ...request, config: plain.merge }, signal)
  else yield* makeAdapter({ ...request, config: plain }, signal)
}

/** A device that nobody else wants. */
const atOnce: HandlerContext['turn'] = async () => ({ [Symbol.dispose]() {} })

const UNKNOWN = 'Nothing is known of where the search looks.'

/** What the search has chosen. */
async function* chosen(
  requested: Requested,
  { searched, request }: { searched: Searched; request: Rest },
  context: HandlerContext,
): AsyncGenerator<RunEvent, Choice, undefined> {
  const { models, out, threads, search: files } = request
  if (!files || requested.kind === 'extraction') throw new Error(UNKNOWN)
  // Only a search needs what trains.
  const { searchAdapters, searchModels } = await import('./search.ts')
  if (requested.kind === 'models') {
    const place = { rows: files.rows, threads }
    const asked = { config: requested.merge, searched }
    return yield* told(searchModels(asked, { models, out, place }, context))
  }
  const place = { model: basePath(requested, models), ...files, threads }
  return yield* told(searchAdapters({ config: requested, searched }, { models, place }, context))
}

/** Where the model of adapters lies. */
function basePath(
  requested: Exclude<Requested, { kind: 'models' }>,
  models: Rest['models'],
): string {
  const base =
    requested.base_model ??
    (requested.kind === 'adapters' ? requested.adapters[0]!.name : undefined)
  const path = base && models[keyOf(base)]?.path
  if (!path) throw new Error(UNKNOWN)
  return path
}

async function* told(
  candidates: AsyncGenerator<Candidate, Choice, undefined>,
): AsyncGenerator<RunEvent, Choice, undefined> {
  for (;;) {
    const next = await candidates.next()
    if (next.done) return next.value
    yield { type: 'candidate', ...next.value }
  }
}

/** A candidate as a line of text. */
export function candidateText(event: Candidate): string {
  const { candidate, budget, weights, density, loss, score, best } = event
  const point = `weights ${weights.map((w) => w.toFixed(3)).join(', ')}`
  const share = density === undefined ? '' : `, density ${density.toFixed(3)}`
  const measure = score === undefined ? `loss ${loss?.toFixed(4)}` : `score ${score.toFixed(4)}`
  return `Candidate ${candidate}/${budget}: ${point}${share}, ${measure}${best ? ', the best' : ''}`
}
