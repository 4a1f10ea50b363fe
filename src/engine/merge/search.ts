// Chooses weights and densities of a merge by the loss on rows that none of its inputs has learned. Where adapters are
// combined, a candidate is one vector that the graph of the base takes in: nothing is written, no session is opened again.
// Whole models are merged beside the result, one candidate at a time.

import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { loraConfigOf } from '../models/adapters.ts'
import type { HandlerContext } from '../runtime/thread.ts'
import type { LoraPair } from '../weights/adapter.ts'
import type { AdapterMergeConfig } from './adapter-config.ts'
import { makePair } from './adapter-pair.ts'
import { planCombination, weighted } from './adapter-plan.ts'
import { isWeighted, type MergeConfig, withChosen } from './config.ts'
import { evolve } from './evolution.ts'
import { merge } from './merge.ts'
import type { ModelFiles } from './models.ts'
import { openLosses, type SearchPlace } from './search-losses.ts'
import { type Candidate, pointsOf } from './search-points.ts'
import type { SearchSettings } from './search-settings.ts'

/** Tries candidates until the budget is used; the best of them is what the merge is made with. */
export async function* searchAdapters(
  { config, search }: { config: AdapterMergeConfig; search: SearchSettings },
  { models, place }: { models: Readonly<Record<string, ModelFiles>>; place: SearchPlace },
  { signal, turn }: HandlerContext,
): AsyncGenerator<Candidate, void, undefined> {
  const plan = await planCombination(config, models)
  const lora = loraConfigOf({ config: plan.config, pairs: new Map() })
  await using losses = await openLosses(place, lora, turn)
  const { density } = config
  const given = config.adapters.map(({ weight }) => weight)
  const { box, start, read } = pointsOf({ weights: given, ...(density && { density }) }, search)
  const { budget } = search
  const lossOf = async (point: readonly number[]) => {
    signal.throwIfAborted()
    const { weights, density } = read(point)
    const pairs = new Map<string, LoraPair>()
    for (const module of plan.modules)
      pairs.set(module.module, (await makePair(weighted(module, weights, density))).pair)
    return losses.of(pairs)
  }
  for await (const { point, ...tried } of evolve({ box, start, budget, seed: config.seed }, lossOf))
    yield { ...tried, ...read(point) }
}

/** No adapter: the least that a graph which takes one can be given. */
const NONE = { rank: 1, alpha: 1, target_modules: ['q_proj'] }

/** The same for whole models: each candidate is written beside the result, opened, and removed. */
export async function* searchModels(
  { config, search }: { config: MergeConfig; search: SearchSettings },
  {
    models,
    out,
    place,
  }: {
    models: Readonly<Record<string, ModelFiles>>
    out: string
    place: Omit<SearchPlace, 'model' | 'cache'>
  },
  { signal, turn }: HandlerContext,
): AsyncGenerator<Candidate, void, undefined> {
  const weights = config.slices[0]!.sources.filter((source) => isWeighted(config, source)).map(
    ({ parameters: { weight } }) => (typeof weight === 'number' ? weight : 1),
  )
  const { box, start, read } = pointsOf({ weights }, search)
  const { budget } = search
  const scratch = join(out, '.candidate')
  const folder = join(scratch, 'model')
  const lossOf = async (point: readonly number[]) => {
    await rm(scratch, { recursive: true, force: true })
    const candidate = withChosen(config, read(point))
    for await (const _ of merge(
      { config: candidate, models, out: folder, threads: place.threads },
      signal,
    ));
    signal.throwIfAborted()
    await using losses = await openLosses(
      { ...place, model: folder, cache: join(scratch, 'cache') },
      NONE,
      turn,
    )
    return losses.of(new Map())
  }
  try {
    for await (const { point, ...tried } of evolve(
      { box, start, budget, seed: config.seed },
      lossOf,
    ))
      yield { ...tried, ...read(point) }
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}
