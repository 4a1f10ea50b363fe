// How fast this machine computes the kinds of work that a step is made of: measured in a second, kept per machine.

import { createHash } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { constant, input, type Value } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import * as op from '../graph/ops/ops.ts'
import type { Compute } from '../runtime/device.ts'
import { createSession } from '../runtime/session.ts'
import { elements, float32 } from '../tensor.ts'
import { type Work, workOf } from './graph-work.ts'

/** Operations, bytes and nodes a second. */
export type Throughput = Work

/** Nodes of a chain that computes next to nothing. */
const CHAIN = 400
/** Counts up whenever what is measured changes. */
const VERSION = 2
/** A measurement takes the fastest run of so many seconds: what else the machine does only slows them. */
const SECONDS = 0.25
/** What is multiplied: tokens, and a small model's width and its products'. */
const [N, K, M] = [256, 576, 1536]
/** Rows of what is passed element by element: as large as a step's own tensors, of which caches hold some. */
const WIDE = 512

/** What was measured on this machine, or is now: `cache` keeps it. */
export async function throughputOf(compute: Compute, cache: string): Promise<Throughput> {
  const machine = JSON.stringify([VERSION, cpus()[0]?.model, cpus().length, compute])
  const key = createHash('sha256').update(machine).digest('hex').slice(0, 16)
  const file = join(cache, `throughput-${key}.json`)
  const known = await readFile(file, 'utf8').catch(() => undefined)
  if (known !== undefined) return JSON.parse(known) as Throughput
  const measured = await measureThroughput(compute)
  await mkdir(cache, { recursive: true })
  await writeFile(`${file}.${process.pid}`, JSON.stringify(measured))
  await rename(`${file}.${process.pid}`, file)
  return measured
}

/** Runs a few small graphs. */
export async function measureThroughput(compute: Compute): Promise<Throughput> {
  const x = input('x', 'float32', [N, K])
  const heads = input('x', 'float32', [9, N, 64])
  const wide = input('x', 'float32', [WIDE, M])
  const one = input('x', 'float32', [1])
  const repeated = (x: Value, times: number, body: (x: Value) => Value) => {
    let y = x
    for (let i = 0; i < times; i++) y = body(y)
    return y
  }
  const ones = (...dims: number[]) =>
    constant(float32(dims, new Float32Array(elements(dims)).fill(0.1)))
  const w = ones(M, K)
  const bytesOf = (value: number, count: number) => new Int8Array(count).fill(value)
  const int8 = {
    smoothing: ones(K),
    forward: constant({ dtype: 'int8', dims: [K, M], data: bytesOf(1, K * M) }),
    forward_scale: ones(M),
    backward: constant({ dtype: 'int8', dims: [M, K], data: bytesOf(1, K * M) }),
    backward_scale: ones(K),
  }
  const scaling = ones(1, M)
  const timeOf = (x: Value, y: Value) => fastest(x, y, compute)
  const passed = repeated(wide, 8, (y) => op.mul(y, scaling))
  const bytes = bytesIn(passed) / (await timeOf(wide, passed))
  // What surrounds a product is counted as bytes, so its time is not the product's.
  const rate = async (x: Value, y: Value, flops: number) => {
    const seconds = await timeOf(x, y)
    return flops / Math.max(seconds - bytesIn(y) / bytes, seconds / 4)
  }
  const start = await timeOf(one, op.neg(one))
  const chain = await timeOf(one, repeated(one, CHAIN, op.neg))
  const fp32 = await rate(x, op.linear(x, w), 2 * N * K * M)
  const attended = op.matmul(heads, op.transpose(heads, [0, 2, 1]))
  return {
    fp32,
    // Elsewhere than on a processor there is no int8: nothing asks for it.
    int8: compute.device === 'cpu' ? await rate(x, op.int8Linear(x, int8), 2 * N * K * M) : fp32,
    batched: await rate(heads, attended, 2 * 9 * N * N * 64),
    bytes,
    nodes: CHAIN / Math.max(chain - start, 1e-6),
  }
}

const bytesIn = (y: Value): number => workOf({ y }, { supervised: 0 }).bytes

/** Seconds of the fastest run. */
async function fastest(x: Value, y: Value, { device, threads }: Compute): Promise<number> {
  const dims = x.dims as number[]
  const feeds = { x: float32(dims, new Float32Array(elements(dims)).fill(0.5)) }
  await using session = await createSession(encodeOnnx({ y }), { device, threads })
  const into = { y: float32(y.dims as number[], new Float32Array(elements(y.dims as number[]))) }
  await session.run(feeds, into)
  let best = Number.POSITIVE_INFINITY
  const end = performance.now() + 1000 * SECONDS
  while (performance.now() < end) {
    const begun = performance.now()
    await session.run(feeds, into)
    best = Math.min(best, (performance.now() - begun) / 1000)
  }
  return best
}
