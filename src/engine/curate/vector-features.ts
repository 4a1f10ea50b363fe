// Rows told apart by an encoder's vectors: the density of reference rows around a row over that of training rows, and
// the odds of the groups of like texts that it falls into.

import { setImmediate as breathe } from 'node:timers/promises'
import { input, scalar } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import * as op from '../graph/ops/ops.ts'
import { uniform } from '../random.ts'
import { createSession } from '../runtime/session.ts'
import { float32 } from '../tensor.ts'
import { clusterOdds, type Space } from './cluster-odds.ts'
import type { Embedded } from './embed-texts.ts'
import type { Features, Folds } from './representative.ts'

/** Rows that are compared with all others in one product. */
const BLOCK = 256
/** Pairs from which the spread of similarities is taken, and training rows whose own nearest are looked for. */
const PAIRS = 20_000
const OWN_NEAREST = 400
/** The kernel's width as a share of that spread: between a third and two thirds little changes. */
const WIDTH = 0.5

export function vectorFeatures(
  name: string,
  embed: (texts: readonly string[]) => Promise<Embedded>,
): Features {
  let space: Space | undefined
  let split: Folds | undefined
  let lines: readonly number[] = []
  return {
    name: `vectors of ${name}, kernel density and groups`,
    async scores(all, folds) {
      split = folds
      lines = all.map(({ line }) => line)
      space = centred(await embed(all.map(({ asked }) => asked)))
      const [density, groups] = [await densityOdds(space, folds), await clusterOdds(space, folds)]
      return density.map((odds, row) => (odds + groups[row]!) / 2)
    },
    nearest() {
      if (!space || !split) throw new Error('nearest() comes after scores().')
      const training = split.labels.indexOf(1)
      const nearest = (row: number) => nearestTraining(space!, training, row)
      // Training rows among themselves: what is farther off than three quarters of them are has no like there.
      const step = Math.max(1, Math.floor(training / OWN_NEAREST))
      const own: number[] = []
      for (let row = 0; row < training; row += step) own.push(nearest(row).similarity)
      own.sort((a, b) => a - b)
      return {
        similar: own[Math.floor(own.length / 4)]!,
        of(_, index) {
          const { row, similarity } = nearest(training + index)
          return { line: lines[row]!, similarity }
        },
      }
    },
  }
}

/** Without what all texts have in common, each again of norm 1. */
function centred({ vectors, size }: Embedded): Space {
  const rows = vectors.length / size
  const mean = new Float64Array(size)
  for (let i = 0; i < vectors.length; i++) mean[i % size]! += vectors[i]! / rows
  const moved = vectors.map((x, i) => x - mean[i % size]!)
  for (let row = 0; row < rows; row++) {
    const own = moved.subarray(row * size, (row + 1) * size)
    const norm = Math.sqrt(own.reduce((sum, x) => sum + x * x, 0)) || 1
    for (let k = 0; k < size; k++) own[k]! /= norm
  }
  return { vectors: moved, size, rows }
}

function dot({ vectors, size }: Space, a: number, b: number): number {
  let sum = 0
  for (let k = 0; k < size; k++) sum += vectors[a * size + k]! * vectors[b * size + k]!
  return sum
}

function spreadOf(space: Space): number {
  let [sum, squares] = [0, 0]
  for (let pair = 0; pair < PAIRS; pair++) {
    const a = Math.floor(uniform(23, 0, pair) * space.rows)
    const b = (a + 1 + Math.floor(uniform(23, 1, pair) * (space.rows - 1))) % space.rows
    const similarity = dot(space, a, b)
    sum += similarity
    squares += similarity * similarity
  }
  return Math.sqrt(Math.max(1e-6, squares / PAIRS - (sum / PAIRS) ** 2))
}

/**
 * For each row the log of the ratio of two sums of exp((cosine − 1) / width), over the reference rows and over the
 * training rows, of other folds than its own.
 */
async function densityOdds(space: Space, { labels, folds, count }: Folds): Promise<Float64Array> {
  const { vectors, size, rows } = space
  const width = WIDTH * spreadOf(space)
  const C = 2 * count
  const members = new Float32Array(rows * C)
  for (let row = 0; row < rows; row++) members[row * C + labels[row]! * count + folds[row]!] = 1
  const some = input('some', 'float32', ['B', size])
  const all = input('all', 'float32', [rows, size])
  const similarity = op.gemm(some, all, { transB: true }) // [B, N]
  const kernel = op.exp(op.scale(op.sub(similarity, scalar(1)), 1 / width))
  const sums = op.matmul(kernel, input('members', 'float32', [rows, C])) // [B, 2 × folds]
  await using session = await createSession(encodeOnnx({ sums }), { threads: 1 })
  const feeds = { all: float32([rows, size], vectors), members: float32([rows, C], members) }
  const scores = new Float64Array(rows)
  for (let from = 0; from < rows; from += BLOCK) {
    const B = Math.min(BLOCK, rows - from)
    const block = vectors.slice(from * size, (from + B) * size)
    const outputs = await session.run({ ...feeds, some: float32([B, size], block) })
    const sums = outputs.sums!.data as Float32Array
    for (let b = 0; b < B; b++) {
      const density = (label: number) => {
        let sum = 0
        for (let fold = 0; fold < count; fold++)
          if (fold !== folds[from + b]) sum += sums[b * C + label * count + fold]!
        return sum
      }
      scores[from + b] = Math.log((density(1) + 1e-30) / (density(0) + 1e-30)) + prior(labels)
    }
    await breathe()
  }
  return scores
}

/** Of two files of different sizes: the odds are of one row against one row. */
function prior(labels: Uint8Array): number {
  const training = labels.indexOf(1)
  return Math.log(training / (labels.length - training))
}

/** The training row that is most like a row, itself left out. */
function nearestTraining(space: Space, training: number, row: number) {
  let best = { row: -1, similarity: -1 }
  for (let other = 0; other < training; other++) {
    if (other === row) continue
    const similarity = dot(space, row, other)
    if (similarity > best.similarity) best = { row: other, similarity }
  }
  return best
}
