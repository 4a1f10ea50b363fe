// The int8 copy of a model's frozen projections: what has to be known of the activations before it can be made.

import { input, scalar, type Value } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import * as op from '../graph/ops/ops.ts'
import { createSession } from '../runtime/session.ts'
import { int64 } from '../tensor.ts'
import type { Tokenizer } from '../tokenizer/tokenizer.ts'
import type { MappedWeights, ModelConfig } from '../weights/checkpoint.ts'
import { type CalibratedBlock, mapInt8 } from '../weights/int8.ts'
import { calibrationRows } from './calibration.ts'
import { textAttention } from './encoder.ts'
import { firstTypes } from './encoder-pass.ts'
import { findEncoder } from './encoders.ts'
import { architectureOf } from './index.ts'
import { type PackedRows, packedAttention } from './layers.ts'
import { type Products, plainProducts } from './products.ts'
import { type Weights, weightsOf } from './weights.ts'

/** Tokens of one calibration row, and rows of the whole batch. */
const CALIBRATION = { length: 128, rows: 4 }

/**
 * The weights with their int8 copy, which every graph over them then computes with; made when it is first asked for. The activations of an ordinary text tell which
 * channels are outliers; they are computed on one thread, so that machines of one kind make equal bytes.
 */
export async function withInt8(
  weights: MappedWeights,
  cacheDir: string,
  tokenizer: Tokenizer,
): Promise<MappedWeights> {
  const length = Math.min(CALIBRATION.length, weights.config.max_position_embeddings)
  const rows = () => calibrationRows(tokenizer, { ...CALIBRATION, length })
  return { ...weights, int8: await mapInt8(weights, cacheDir, () => calibrate(weights, rows())) }
}

/**
 * What share of its input each channel of each block carries, over the rows. The first block, which reads the
 * embeddings, stays in float32: all others feel its error, and it is one of many (docs/facts.md).
 */
async function calibrate(
  weights: MappedWeights,
  rows: readonly (readonly number[])[],
): Promise<CalibratedBlock[]> {
  const [B, T] = [rows.length, rows[0]!.length]
  const ids = rows.flat()
  const blocks: { members: string[]; shares: Value }[] = []
  const recording: Products = (x, ws) => {
    const squares = op.mul(x, x)
    const ofRow = op.div(squares, op.add(op.reduceSum(squares, [1]), scalar(1e-20)))
    blocks.push({ members: ws.map((w) => w.path), shares: op.reduceMean(ofRow, [0]) })
    return plainProducts(x, ws)
  }

  const positions = input('positions', 'int64', [B, T])
  const segments = input('segments', 'int64', [B, T])
  const hidden = hiddenOf(weightsOf(weights, { products: recording }), weights.config, {
    ids: input('tokens', 'int64', [B * T]),
    packed: { rows: B, length: T, positions, segments },
  })
  const outputs = Object.fromEntries(blocks.map(({ shares }, i) => [`shares.${i}`, shares]))
  await using session = await createSession(encodeOnnx({ ...outputs, hidden }), { threads: 1 })
  const results = await session.run({
    tokens: int64([B * T], ids),
    positions: int64(
      [B, T],
      ids.map((_, i) => i % T),
    ),
    segments: int64([B, T], new Int32Array(B * T)),
  })
  return blocks
    .map(({ members }, i) => ({ members, shares: results[`shares.${i}`]!.data as Float32Array }))
    .slice(1)
}

/** The forward pass of either kind of model, every product of it by way of `weights`. */
function hiddenOf(
  weights: Weights,
  config: ModelConfig,
  { ids, packed }: { ids: Value; packed: PackedRows },
): Value {
  const flat = (x: Value) => op.reshape(x, [packed.rows * packed.length])
  const positions = flat(packed.positions)
  const encoder = findEncoder(config)
  if (!encoder) {
    const architecture = architectureOf(config)
    const attend = packedAttention(config, packed)
    const hidden = architecture.hidden({ ids, positions }, weights, config, attend)
    weights.products(hidden, [architecture.head(weights, config)]) // recorded, and not computed
    return hidden
  }
  const segments = flat(packed.segments)
  const types = firstTypes(config, ids)
  return encoder.hidden(
    { ids, positions, types },
    weights,
    config,
    textAttention(config, segments, packed),
  )
}
