// Chooses weights and densities of combined adapters by the loss on rows that none of them has learned. A candidate is
// one vector that the graph of the base takes in: nothing is written, no session is opened again.

import { encodeFile } from '../datasets/encode.ts'
import { adapterFromFlat, flatFromAdapter, loraConfigOf, loraLayout } from '../models/adapters.ts'
import type { HandlerContext } from '../runtime/thread.ts'
import { openTokenizer } from '../tokenizer/tokenizer.ts'
import { supervised } from '../train/methods/supervised.ts'
import { createMoments } from '../train/optimizer.ts'
import { chooseShape } from '../train/row-shape.ts'
import { createTrainer } from '../train/trainer.ts'
import type { Adapter, LoraPair } from '../weights/adapter.ts'
import { openCheckpoint } from '../weights/checkpoint.ts'
import { mapWeights } from '../weights/mapped.ts'
import type { AdapterMergeConfig, AdapterSearch } from './adapter-config.ts'
import { makePair } from './adapter-pair.ts'
import { type AdapterPlan, planCombination, weighted } from './adapter-plan.ts'
import { type Box, evolve } from './evolution.ts'
import type { ModelFiles } from './models.ts'

/** Where a search reads and computes. */
export interface SearchPlace {
  /** A Hugging Face folder or a .gguf file: the base of the adapters. */
  readonly model: string
  /** Training rows. */
  readonly rows: string
  /** Folder for converted weights. */
  readonly cache: string
  readonly threads: number
}

export interface Candidate {
  readonly candidate: number
  readonly weights: readonly number[]
  readonly density?: number
  readonly loss: number
  readonly best: boolean
}

const BATCH = 16
const MOST_TOKENS = 1024

/** Tries candidates until the budget is used; the best of them is what the merge is made with. */
export async function* searchAdapters(
  { config, search }: { config: AdapterMergeConfig; search: AdapterSearch },
  { models, place }: { models: Readonly<Record<string, ModelFiles>>; place: SearchPlace },
  { signal, turn }: HandlerContext,
): AsyncGenerator<Candidate, void, undefined> {
  const plan = await planCombination(config, models)
  await using losses = await openLosses(plan, place, turn)
  const { box, start, read } = pointsOf(config, search)
  const { budget } = search
  const lossOf = async (point: readonly number[]) => {
    signal.throwIfAborted()
    const { weights, density } = read(point)
    const pairs = new Map<string, LoraPair>()
    for (const module of plan.modules)
      pairs.set(module.module, (await makePair(weighted(module, weights, density))).pair)
    return losses.of({ config: plan.config, pairs })
  }
  for await (const { point, ...tried } of evolve({ box, start, budget, seed: config.seed }, lossOf))
    yield { ...tried, ...read(point) }
}

/** The numbers that are searched, as a point: all weights, or the density, or both. */
function pointsOf(config: AdapterMergeConfig, search: AdapterSearch) {
  const given = config.adapters.map(({ weight }) => weight)
  const count = search.weights ? given.length : 0
  const side = (at: 0 | 1) => [
    ...Array.from({ length: count }, () => search.weights![at]),
    ...(search.density ? [search.density[at]] : []),
  ]
  const box: Box = { low: side(0), high: side(1) }
  const density = config.density
  const sent = [...(search.weights ? given : []), ...(search.density ? [density ?? 1] : [])]
  return {
    box,
    start: sent.map((x, i) => Math.min(box.high[i]!, Math.max(box.low[i]!, x))),
    read: (point: readonly number[]) => {
      const found = search.density ? point.at(-1) : density
      return {
        weights: search.weights ? point.slice(0, count) : given,
        ...(found !== undefined && { density: found }),
      }
    },
  }
}

/** The base with an adapter as its input, and rows to answer. */
async function openLosses(
  plan: AdapterPlan,
  { model, rows, cache, threads }: SearchPlace,
  turn: HandlerContext['turn'],
) {
  const checkpoint = await openCheckpoint(model)
  if (checkpoint.config.encoder) throw new Error('A search needs a decoder as the base.')
  const weights = await mapWeights(checkpoint, cache)
  const tokenizer = await openTokenizer(checkpoint)
  const { chat_template, config } = checkpoint
  const max_sequence_length = Math.min(MOST_TOKENS, config.max_position_embeddings)
  const encoder = supervised.encoder({ tokenizer, chat_template, max_sequence_length }, {})
  const examples = await encodeFile(rows, encoder)
  if (examples.length === 0) throw new Error('The validation file has no rows.')
  const layout = loraLayout(weights, loraConfigOf({ config: plan.config, pairs: new Map() }))
  const lengths = examples.map(({ tokens }) => tokens.length)
  const adapter = new Float32Array(layout.parameters)
  const trainer = await createTrainer(
    { step: 0, adapter, moments: createMoments(0) },
    {
      objective: supervised.objective({ weights, layout, shape: chooseShape(lengths, BATCH) }),
      threads,
      weightDecay: 0,
      maxGradNorm: 1,
      turn,
    },
  )
  const empty = adapterFromFlat(layout, adapter, '')
  return {
    of: async ({ pairs }: Pick<Adapter, 'config' | 'pairs'>) => {
      // What no adapter has stays zero.
      adapter.set(flatFromAdapter(layout, { ...empty, pairs: new Map([...empty.pairs, ...pairs]) }))
      const measure = await trainer.evaluate(examples)
      return measure?.loss ?? Number.NaN
    },
    [Symbol.asyncDispose]: () => trainer[Symbol.asyncDispose](),
  }
}
