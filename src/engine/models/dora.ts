// DoRA's lengths, computed once from a model's weights: the start of training, and the gains that decoding is fed.

import { input, type Value } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import { rowLengths } from '../graph/ops/dora.ts'
import { createSession } from '../runtime/session.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import { adapterFeeds, type LoraLayout, scaleOf } from './adapters.ts'
import { weightsOf } from './weights.ts'

interface Place {
  readonly weights: MappedWeights
  readonly layout: LoraLayout
  readonly threads: number
}

/** Gives every row of W + s·B·A the length that it has: a fresh adapter changes nothing. */
export const setMagnitudes = (place: Place, flat: Float32Array): Promise<void> =>
  eachLength(place, flat, (_, length) => length)

/** A copy of the vector with gains, magnitude over length, in the place of magnitudes. */
export async function gainsOf(place: Place, flat: Float32Array): Promise<Float32Array> {
  const gains = flat.slice()
  await eachLength(place, gains, (magnitude, length) => magnitude / length)
  return gains
}

/** Replaces each magnitude in the vector; without DoRA there is none. */
async function eachLength(
  { weights, layout, threads }: Place,
  flat: Float32Array,
  replace: (magnitude: number, length: number) => number,
): Promise<void> {
  if (!layout.config.use_dora) return
  const model = weightsOf(weights)
  const lengths: Record<string, Value> = {}
  for (const { name, in: inner, out } of layout.modules) {
    const a = input(`${name}.lora_A`, 'float32', [layout.config.rank, inner])
    const b = input(`${name}.lora_B`, 'float32', [out, layout.config.rank])
    lengths[name] = rowLengths(model.at(name).get('weight'), a, b, scaleOf(layout.config))
  }
  await using session = await createSession(encodeOnnx(lengths), { threads })
  const { modules } = layout
  const feeds = Object.fromEntries(
    Object.entries(adapterFeeds(layout, flat)).filter(([name]) => /\.lora_[AB]$/.test(name)),
  )
  const results = await session.run(feeds)
  for (const { name, magnitude, out } of modules) {
    const found = results[name]!.data as Float32Array
    for (let i = 0; i < out; i++) flat[magnitude! + i] = replace(flat[magnitude! + i]!, found[i]!)
  }
}
