// Rows told apart by where their vectors lie: groups of like texts are found without looking at which file a row is of,
// and a row's odds are those of its group.

import { setImmediate as breathe } from 'node:timers/promises'
import { input } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import * as op from '../graph/ops/ops.ts'
import { uniform } from '../random.ts'
import { createSession } from '../runtime/session.ts'
import { float32 } from '../tensor.ts'
import type { Folds } from './representative.ts'

/** Vectors of norm 1, one a row, end to end. */
export interface Space {
  readonly vectors: Float32Array
  readonly size: number
  readonly rows: number
}

/** Groupings that are averaged: where one draws a border, another does not. */
const GROUPINGS = 6
/** Rows of a group, about: enough to say how many of them the reference has. */
const GROUP_ROWS = 75
const ROUNDS = 8
/** Rows that a group is taken to have besides, in the proportion of the files. */
const SMOOTHING = 2

/** For each row the log of the odds that a row of its group is of the reference, by the rows of other folds. */
export async function clusterOdds(space: Space, folds: Folds): Promise<Float64Array> {
  const { vectors, size, rows } = space
  const K = Math.max(2, Math.round(rows / GROUP_ROWS))
  const all = input('all', 'float32', [rows, size])
  const centres = input('centres', 'float32', [K, size])
  const onnx = encodeOnnx({ similarity: op.gemm(all, centres, { transB: true }) }) // [rows, K]
  await using session = await createSession(onnx, { threads: 1 })
  const nearest = async (centres: Float32Array): Promise<Uint16Array> => {
    const feeds = { all: float32([rows, size], vectors), centres: float32([K, size], centres) }
    const { data } = (await session.run(feeds)).similarity!
    await breathe()
    return closest(data as Float32Array, K)
  }
  const sum = new Float64Array(rows)
  for (let grouping = 0; grouping < GROUPINGS; grouping++) {
    let centres = drawn(space, K, grouping)
    let groups = await nearest(centres)
    for (let round = 0; round < ROUNDS; round++) {
      centres = means(space, groups, centres)
      groups = await nearest(centres)
    }
    for (const [row, odds] of groupOdds(groups, K, folds).entries()) sum[row]! += odds / GROUPINGS
  }
  return sum
}

/** Of each row of K numbers where the greatest stands. */
function closest(similarity: Float32Array, K: number): Uint16Array {
  return new Uint16Array(similarity.length / K).map((_, row) => {
    let best = 0
    for (let k = 1; k < K; k++) if (similarity[row * K + k]! > similarity[row * K + best]!) best = k
    return best
  })
}

/** K rows as the first centres. */
function drawn({ vectors, size, rows }: Space, K: number, seed: number): Float32Array {
  const order = Array.from({ length: rows }, (_, row) => ({ row, key: uniform(29, seed, row) }))
  order.sort((a, b) => a.key - b.key)
  const centres = new Float32Array(K * size)
  for (const [k, { row }] of order.slice(0, K).entries())
    centres.set(vectors.subarray(row * size, (row + 1) * size), k * size)
  return centres
}

/** The mean of each group, of norm 1; of an empty one what it was. */
function means({ vectors, size }: Space, groups: Uint16Array, before: Float32Array): Float32Array {
  const centres = new Float32Array(before.length)
  for (const [row, group] of groups.entries())
    for (let k = 0; k < size; k++) centres[group * size + k]! += vectors[row * size + k]!
  for (let from = 0; from < centres.length; from += size) {
    const own = centres.subarray(from, from + size)
    const norm = Math.hypot(...own)
    if (norm === 0) own.set(before.subarray(from, from + size))
    else for (let k = 0; k < size; k++) own[k]! /= norm
  }
  return centres
}

function groupOdds(groups: Uint16Array, K: number, { labels, folds, count }: Folds): Float64Array {
  const totals = [new Float64Array(K), new Float64Array(K)] as const
  const own = Array.from({ length: count }, () => [new Float64Array(K), new Float64Array(K)])
  for (const [row, group] of groups.entries()) {
    totals[labels[row] as 0 | 1][group]!++
    own[folds[row]!]![labels[row]!]![group]!++
  }
  const share = labels.reduce((sum, label) => sum + label, 0) / labels.length
  return Float64Array.from(groups, (group, row) => {
    const [training, reference] = own[folds[row]!]!
    const others = (label: 0 | 1, fold: Float64Array) => totals[label][group]! - fold[group]!
    return (
      Math.log(others(1, reference!) + SMOOTHING * share) -
      Math.log(others(0, training!) + SMOOTHING * (1 - share)) +
      Math.log((1 - share) / share)
    )
  })
}
