// Many adapters over one base, one token of each sequence: every row meets the matrices of its own adapter alone, where they
// lie. Adapters are cut into chunks of one rank, so that a large one costs a small one nothing.

import { constant, emitOne, input, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import type { Block } from '../models/products.ts'
import type { Adapt } from '../models/weights.ts'
import { float32, type HostTensor, int64 } from '../tensor.ts'
import type { ResidentAdapter, StackedBlock } from './lora-stack.ts'

/** Rank of a chunk; an adapter's last one is filled up with zeros. */
const CHUNK = 8

/** Blocks of the same projections in different layers: an adapter has all of them or none, but for a few. */
const roleOf = (members: readonly string[]): string =>
  members.map((path) => path.slice(path.lastIndexOf('.') + 1)).join('+')

const sum = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0)

/** Outputs side by side in units of one width, so that each unit is a product of its own member alone. */
function unitsOf(widths: readonly number[]): { width: number; members: number[] } {
  const width = widths.reduce((a, b) => gcd(a, b))
  return { width, members: widths.flatMap((w, i) => new Array<number>(w / width).fill(i)) }
}

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))

/**
 * The part of the graph that adds what the chunks add: records the blocks as it goes. By role: `lora.<role>.rows` [E, P], the
 * rows that each of E chunks is for, and `.sum` [N, E·P], which adds up what chunks make of a row. By block: `lora.<i>.a`
 * [E, in, m·c] and `.b` [E, units, c, width].
 */
export function chunkedLoras(): { adapt: Adapt; blocks: StackedBlock[] } {
  const blocks: StackedBlock[] = []
  const known = new Map<string, Value>()
  const ofRole = (name: string, dtype: 'int64' | 'float32', dims: string[]): Value => {
    const value = known.get(name) ?? input(name, dtype, dims)
    known.set(name, value)
    return value
  }
  const adapt: Adapt = (x, { y, members }: Block) => {
    const paths = members.map(({ path }) => path)
    const widths = members.map((w) => Number(w.get('weight').dims[0]))
    const inner = Number(x.dims[1])
    const at = blocks.push({ members: paths, widths, inner }) - 1
    const role = roleOf(paths)
    const m = members.length
    const units = unitsOf(widths)
    const U = units.members.length
    const E = `E.${role}`
    const P = `P.${role}`
    const a = input(`lora.${at}.a`, 'float32', [E, inner, m * CHUNK])
    const b = input(`lora.${at}.b`, 'float32', [E, U, CHUNK, units.width])
    const own = emitOne('Gather', [x, ofRole(`lora.${role}.rows`, 'int64', [E, P])], {
      dtype: 'float32',
      dims: [E, P, inner],
    })
    const low = op.matmul(own, a)
    const apart = shaped(low, [0, 0, m, CHUNK], [E, P, m, CHUNK])
    const spread =
      U === m
        ? apart
        : emitOne(
            'Gather',
            [apart, constant(int64([U], units.members))],
            { dtype: 'float32', dims: [E, P, U, CHUNK] },
            { attributes: { axis: 2 } },
          )
    const high = turned(op.matmul(turned(spread), b))
    const parts = shaped(high, [-1, sum(widths)], [`${E}·${P}`, sum(widths)])
    const adding = ofRole(`lora.${role}.sum`, 'float32', ['N', `${E}·${P}`])
    return op.gemm(adding, parts, { c: y })
  }
  return { adapt, blocks }
}

const shaped = (x: Value, sizes: number[], dims: (string | number)[]): Value =>
  emitOne('Reshape', [x, constant(int64([sizes.length], sizes))], { dtype: 'float32', dims })

/** [E, P, U, …] ↔ [E, U, P, …]; of one unit there is nothing to turn. */
const turned = (x: Value): Value => {
  const [e, p, u, w] = x.dims as [string, string, number, number]
  const type = { dtype: 'float32' as const, dims: [e, u, p, w] }
  return emitOne('Transpose', [x], type, { attributes: { perm: [0, 2, 1, 3] } })
}

/** A chunk of an adapter: its ranks from `part` · c on. */
interface Chunk {
  readonly adapter: ResidentAdapter
  readonly part: number
}

/** The chunks of one role that are used at the moment, without gaps. */
interface Pool {
  readonly role: string
  /** Which blocks of the base. */
  readonly blocks: readonly number[]
  held: Chunk[]
  room: number
  /** By block of the pool. */
  a: Float32Array[]
  b: Float32Array[]
}

/** The adapters that are used at the moment, in memory that is kept from step to step: who comes takes the room of who left. */
export class LoraChunks {
  readonly #blocks: readonly StackedBlock[]
  readonly #pools: Pool[]

  constructor(blocks: readonly StackedBlock[]) {
    this.#blocks = blocks
    const roles = [...new Set(blocks.map(({ members }) => roleOf(members)))]
    this.#pools = roles.map((role) => ({
      role,
      blocks: [...blocks.keys()].filter((i) => roleOf(blocks[i]!.members) === role),
      held: [],
      room: 0,
      a: [],
      b: [],
    }))
  }

  /** Feeds for rows that use these adapters, undefined: none. */
  feed(rows: readonly (ResidentAdapter | undefined)[]): Readonly<Record<string, HostTensor>> {
    const users = new Map<ResidentAdapter, number[]>()
    for (const [row, adapter] of rows.entries())
      if (adapter) users.set(adapter, [...(users.get(adapter) ?? []), row])
    const feeds: Record<string, HostTensor> = {}
    for (const pool of this.#pools) {
      this.#place(pool, users)
      const E = Math.max(1, pool.held.length)
      const P = Math.max(1, ...[...users.values()].map(({ length }) => length))
      const own = new Int32Array(E * P)
      const adding = new Float32Array(rows.length * E * P)
      for (const [e, { adapter }] of pool.held.entries())
        for (const [p, row] of users.get(adapter)!.entries()) {
          own[e * P + p] = row
          adding[row * E * P + e * P + p] = 1
        }
      feeds[`lora.${pool.role}.rows`] = int64([E, P], own)
      feeds[`lora.${pool.role}.sum`] = float32([rows.length, E * P], adding)
      for (const [k, i] of pool.blocks.entries()) {
        const { members, widths, inner } = this.#blocks[i]!
        const [m, width] = [members.length, sum(widths)]
        const units = unitsOf(widths)
        const a = pool.a[k]!.subarray(0, E * m * CHUNK * inner)
        const b = pool.b[k]!.subarray(0, E * CHUNK * width)
        feeds[`lora.${i}.a`] = float32([E, inner, m * CHUNK], a)
        feeds[`lora.${i}.b`] = float32([E, units.members.length, CHUNK, units.width], b)
      }
    }
    return feeds
  }

  /** Forgets everything: its memory goes with it. */
  clear(): void {
    for (const pool of this.#pools) Object.assign(pool, { held: [], room: 0, a: [], b: [] })
  }

  #place(pool: Pool, users: ReadonlyMap<ResidentAdapter, unknown>): void {
    const holes = [...pool.held.keys()].filter((e) => !users.has(pool.held[e]!.adapter))
    const there = new Set(pool.held.map(({ adapter }) => adapter))
    const missing = [...users.keys()].flatMap((adapter) =>
      there.has(adapter) ? [] : chunksOf(adapter, pool.blocks),
    )
    const count = pool.held.length - holes.length + missing.length
    this.#grow(pool, Math.max(1, count))
    for (const chunk of missing) this.#put(pool, holes.shift() ?? pool.held.length, chunk)
    // What is left of the holes is filled from the end.
    while (holes.length > 0) {
      const last = pool.held.length - 1
      if (holes.at(-1) === last) holes.pop()
      else this.#put(pool, holes.shift()!, pool.held[last]!)
      pool.held.pop()
    }
  }

  #grow(pool: Pool, room: number): void {
    if (room <= pool.room) return
    const wide = Math.max(room, 2 * pool.room)
    for (const [k, i] of pool.blocks.entries()) {
      const { members, widths, inner } = this.#blocks[i]!
      const a = new Float32Array(wide * CHUNK * members.length * inner)
      const b = new Float32Array(wide * CHUNK * sum(widths))
      if (pool.a[k]) a.set(pool.a[k])
      if (pool.b[k]) b.set(pool.b[k])
      pool.a[k] = a
      pool.b[k] = b
    }
    pool.room = wide
  }

  #put(pool: Pool, at: number, chunk: Chunk): void {
    for (const [k, i] of pool.blocks.entries())
      copyChunk(chunk, i, this.#blocks[i]!, { a: pool.a[k]!, b: pool.b[k]!, at })
    pool.held[at] = chunk
  }
}

/** None where the adapter has nothing on any of these blocks. */
function chunksOf(adapter: ResidentAdapter, blocks: readonly number[]): Chunk[] {
  if (!blocks.some((i) => adapter.blocks[i]!.some(Boolean))) return []
  return Array.from({ length: Math.ceil(adapter.rank / CHUNK) }, (_, part) => ({ adapter, part }))
}

function copyChunk(
  { adapter, part }: Chunk,
  block: number,
  { members, widths, inner }: StackedBlock,
  to: { a: Float32Array; b: Float32Array; at: number },
): void {
  const { rank, blocks } = adapter
  const parts = blocks[block]!
  const count = Math.min(CHUNK, rank - part * CHUNK)
  const units = unitsOf(widths)
  const m = members.length
  let unit = to.at * units.members.length
  for (const [i, out] of widths.entries()) {
    const { a, b } = parts[i] ?? {}
    const own = a ? count : 0
    for (let j = 0; j < inner; j++) {
      const from = j * rank + part * CHUNK
      const start = ((to.at * inner + j) * m + i) * CHUNK
      for (let r = 0; r < CHUNK; r++) to.a[start + r] = r < own ? a![from + r]! : 0
    }
    for (let left = 0; left < out; left += units.width, unit++)
      for (let r = 0; r < CHUNK; r++) {
        const start = (unit * CHUNK + r) * units.width
        const from = (part * CHUNK + r) * out + left
        if (b && r < count) to.b.set(b.subarray(from, from + units.width), start)
        else to.b.fill(0, start, start + units.width)
      }
  }
}
