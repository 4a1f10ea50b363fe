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
import { type MergeConfig, withChosen } from './config.ts'
import { merge } from './merge.ts'
import type { ModelFiles } from './models.ts'
import { openLosses, type SearchPlace } from './search-losses.ts'
import { type Candidate, type Choice, type Searched, tryCandidates } from './search-points.ts'

type Candidates = AsyncGenerator<Candidate, Choice, undefined>

/** Tries candidates until the budget is used; returns what the merge is to be made with. */
export async function* searchAdapters(
  { config, searched }: { config: AdapterMergeConfig; searched: Searched },
  { models, place }: { models: Readonly<Record<string, ModelFiles>>; place: SearchPlace },
  { signal, turn }: HandlerContext,
): Candidates {
  const plan = await planCombination(config, models)
  const lora = loraConfigOf({ config: plan.config, pairs: new Map() })
  await using losses = await openLosses(place, lora, turn)
  return yield* tryCandidates(searched, async ({ weights, density }) => {
    signal.throwIfAborted()
    const pairs = new Map<string, LoraPair>()
    for (const module of plan.modules)
      pairs.set(module.module, (await makePair(weighted(module, weights, density))).pair)
    return { loss: await losses.of(pairs) }
  })
}

/** No adapter: the least that a graph which takes one can be given. */
const NONE = { rank: 1, alpha: 1, target_modules: ['q_proj'] }

/** The same for whole models: each candidate is written beside the result, opened, and removed. */
export async function* searchModels(
  { config, searched }: { config: MergeConfig; searched: Searched },
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
): Candidates {
  const scratch = join(out, '.candidate')
  const folder = join(scratch, 'model')
  try {
    return yield* tryCandidates(searched, async (choice) => {
      await rm(scratch, { recursive: true, force: true })
      const request = { config: withChosen(config, choice), models, out: folder }
      for await (const _ of merge({ ...request, threads: place.threads }, signal));
      signal.throwIfAborted()
      const own = { ...place, model: folder, cache: join(scratch, 'cache') }
      await using losses = await openLosses(own, NONE, turn)
      return { loss: await losses.of(new Map()) }
    })
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}
