// Does what is asked for, whichever of the three it is.

import type { HandlerContext } from '../runtime/thread.ts'
import type { AdapterMergeConfig } from './adapter-config.ts'
import { makeAdapter, planAdapter } from './adapters.ts'
import { keyOf, type MergeConfig, withChosen } from './config.ts'
import { type MergeEvent, type MergeRequest, merge, prepareMerge } from './merge.ts'
import type { Requested } from './requested.ts'
import type { Candidate } from './search-points.ts'

interface Rest extends Omit<MergeRequest, 'config'> {
  /** For a search: its rows, and a folder for converted weights. */
  readonly search?: { readonly rows: string; readonly cache: string }
}

/** What a search tells of itself, besides what a merge does. */
export type RunEvent = MergeEvent | ({ type: 'candidate'; budget: number } & Candidate)

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

export async function* runRequested(
  requested: Requested,
  request: Rest,
  { signal = new AbortController().signal, turn = atOnce }: Partial<HandlerContext> = {},
): AsyncGenerator<RunEvent, void, undefined> {
  const context = { signal, turn }
  if (requested.kind === 'models') {
    const { merge: config } = requested
    const settled = config.search ? yield* chosenModel(config, request, context) : config
    return yield* merge({ ...request, config: settled }, signal)
  }
  const config =
    requested.kind === 'adapters' && requested.search
      ? yield* chosenAdapter(requested, request, context)
      : requested
  yield* makeAdapter({ ...request, config }, signal)
}

/** A device that nobody else wants. */
const atOnce: HandlerContext['turn'] = async () => ({ [Symbol.dispose]() {} })

const UNKNOWN = 'Nothing is known of where the search looks.'

/** The merge of adapters with what the search has chosen. */
async function* chosenAdapter(
  { search, ...config }: AdapterMergeConfig,
  { models, threads, search: files }: Rest,
  context: HandlerContext,
): AsyncGenerator<RunEvent, AdapterMergeConfig, undefined> {
  const base = config.base_model ?? config.adapters[0]!.name
  const model = models[keyOf(base)]?.path
  if (!search || !files || !model) throw new Error(UNKNOWN)
  // Only a search needs what trains.
  const { searchAdapters } = await import('./search.ts')
  const place = { model, ...files, threads }
  const candidates = searchAdapters({ config, search }, { models, place }, context)
  const { weights, density } = yield* best(candidates, search.budget)
  return {
    ...config,
    adapters: config.adapters.map(({ name }, i) => ({ name, weight: weights[i]! })),
    ...(density !== undefined && { density }),
  }
}

/** The merge of models with what the search has chosen. */
async function* chosenModel(
  config: MergeConfig,
  { models, out, threads, search: files }: Rest,
  context: HandlerContext,
): AsyncGenerator<RunEvent, MergeConfig, undefined> {
  const { search } = config
  if (!search || !files) throw new Error(UNKNOWN)
  const { searchModels } = await import('./search.ts')
  const place = { rows: files.rows, threads }
  const candidates = searchModels({ config, search }, { models, out, place }, context)
  return withChosen(config, yield* best(candidates, search.budget))
}

async function* best(
  candidates: AsyncIterable<Candidate>,
  budget: number,
): AsyncGenerator<RunEvent, Candidate, undefined> {
  let found: Candidate | undefined
  for await (const candidate of candidates) {
    if (candidate.best) found = candidate
    yield { type: 'candidate', budget, ...candidate }
  }
  if (!found) throw new Error('The search has tried nothing.')
  return found
}

/** A candidate as a line of text. */
export function candidateText(event: Extract<RunEvent, { type: 'candidate' }>): string {
  const { candidate, budget, weights, density, loss, score, best } = event
  const point = `weights ${weights.map((w) => w.toFixed(3)).join(', ')}`
  const share = density === undefined ? '' : `, density ${density.toFixed(3)}`
  const measure = score === undefined ? `loss ${loss?.toFixed(4)}` : `score ${score.toFixed(4)}`
  return `Candidate ${candidate}/${budget}: ${point}${share}, ${measure}${best ? ', the best' : ''}`
}
