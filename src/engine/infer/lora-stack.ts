// Adapters of many ranks and targets over one base, side by side: each block of projections has one matrix A of all of
// them and one B, and a row of the batch uses the columns of its own. Knows matrices; no sequences.

import { input, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import type { Block } from '../models/products.ts'
import type { Adapt } from '../models/weights.ts'
import { float32, type HostTensor, int64 } from '../tensor.ts'

/** A block of projections of one input, in the order of the model. */
export interface StackedBlock {
  /** Module paths: `model.layers.0.self_attn.q_proj`. */
  readonly members: readonly string[]
  /** Outputs of each. */
  readonly widths: readonly number[]
  readonly inner: number
}

/** What an adapter has of one projection: A [in, rank], and B [rank, out] with the scale in it. */
export interface ResidentPart {
  readonly a: Float32Array
  readonly b: Float32Array
}

/** One adapter, laid out for the blocks of its base. */
export interface ResidentAdapter {
  readonly rank: number
  /** Of each block by member; undefined where the adapter is not on it. */
  readonly blocks: readonly (readonly (ResidentPart | undefined)[])[]
  /** DoRA's factor of each output of each block, [Σ out]. */
  readonly gains: readonly Float32Array[] | undefined
  readonly bytes: number
}

const sum = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0)

/** The part of the graph that adds one adapter to every row: records the blocks as it goes. */
export function singleLora(): { adapt: Adapt; blocks: StackedBlock[] } {
  const blocks: StackedBlock[] = []
  const adapt: Adapt = (x, { y, members }: Block) => {
    const { a, b } = enter(blocks, x, members)
    return op.gemm(op.gemm(x, a), b, { c: y })
  }
  return { adapt, blocks }
}

/** The next block, and its two matrices. */
function enter(blocks: StackedBlock[], x: Value, members: Block['members']) {
  const widths = members.map((w) => Number(w.get('weight').dims[0]))
  const inner = Number(x.dims[1])
  const at = blocks.push({ members: members.map(({ path }) => path), widths, inner }) - 1
  const R = `R${members.length}`
  const a = input(`lora.${at}.a`, 'float32', [inner, R])
  const b = input(`lora.${at}.b`, 'float32', [R, sum(widths)])
  return { at, widths, a, b }
}

/** The part of the graph that adds what the stack adds: records the blocks as it goes. */
export function stackedLoras(gained: boolean): { adapt: Adapt; blocks: StackedBlock[] } {
  const blocks: StackedBlock[] = []
  const masks = new Map<number, Value>()
  const rows = gained ? input('lora.rows', 'int64', ['N']) : undefined
  const adapt: Adapt = (x, { y, members }: Block) => {
    const { at, widths, a, b } = enter(blocks, x, members)
    const m = members.length
    const mask = masks.get(m) ?? input(`lora.mask.${m}`, 'float32', ['N', `R${m}`])
    masks.set(m, mask)
    const own = op.mul(op.gemm(x, a), mask)
    const adapted = op.gemm(own, b, { c: y })
    if (!rows) return adapted
    return op.mul(adapted, op.gather(input(`lora.${at}.gain`, 'float32', ['E', sum(widths)]), rows))
  }
  return { adapt, blocks }
}

/** Which of the stack's columns each row uses, and the matrices. */
export interface StackFeeds {
  readonly feeds: Readonly<Record<string, HostTensor>>
  readonly gained: boolean
}

interface Entry {
  readonly adapter: ResidentAdapter
  readonly from: number
  readonly room: number
}

/**
 * The adapters that are used at the moment, in memory that is kept from run to run: who comes is copied into the room of
 * one that is not used any more, so that most steps copy nothing.
 */
export class LoraStack {
  readonly #blocks: readonly StackedBlock[]
  #entries: Entry[] = []
  #columns = 0
  #a: Float32Array[] = []
  #b: Float32Array[] = []
  #gains: HostTensor[] | undefined
  readonly #lone: LoneAdapter

  constructor(blocks: readonly StackedBlock[], lone = new LoneAdapter()) {
    this.#blocks = blocks
    this.#lone = lone
  }

  /** Feeds for rows that use these adapters, undefined: none. Each adapter's columns are its own. */
  feed(rows: readonly (ResidentAdapter | undefined)[]): StackFeeds {
    const used = new Set(rows.flatMap((adapter) => adapter ?? []))
    const [only] = used
    if (used.size === 1 && rows.every((adapter) => adapter === only))
      return alone(this.#blocks, only!, this.#lone.feeds(this.#blocks, only!), rows.length)
    this.#place(used)
    const at = new Map(this.#entries.map((entry, i) => [entry.adapter, { ...entry, row: i + 1 }]))
    const feeds: Record<string, HostTensor> = {}
    const R = this.#columns
    for (const m of new Set(this.#blocks.map(({ members }) => members.length))) {
      const mask = new Float32Array(rows.length * m * R)
      for (const [row, adapter] of rows.entries()) {
        if (!adapter) continue
        const { from } = at.get(adapter)!
        const start = (row * R + from) * m
        mask.fill(1, start, start + m * adapter.rank)
      }
      feeds[`lora.mask.${m}`] = float32([rows.length, m * R], mask)
    }
    Object.assign(feeds, matricesOf(this.#blocks, { a: this.#a, b: this.#b, columns: R }))
    const gained = [...used].some(({ gains }) => gains)
    if (gained) {
      this.#gains ??= gainsOf(
        this.#blocks,
        this.#entries.map(({ adapter }) => adapter),
      )
      for (const [i, gain] of this.#gains.entries()) feeds[`lora.${i}.gain`] = gain
      const own = rows.map((adapter) => (adapter ? at.get(adapter)!.row : 0))
      feeds['lora.rows'] = int64([rows.length], own)
    }
    return { feeds, gained }
  }

  /** Forgets everything: its memory goes with it. */
  clear(): void {
    this.#entries = []
    this.#columns = 0
    this.#a = []
    this.#b = []
    this.#gains = undefined
  }

  #place(used: ReadonlySet<ResidentAdapter>): void {
    const there = new Set(this.#entries.map(({ adapter }) => adapter))
    const missing = [...used].filter((adapter) => !there.has(adapter))
    const wanted = sum([...used].map(({ rank }) => rank))
    if (missing.length === 0 && this.#columns <= 2 * wanted) return
    const idle = this.#entries.filter(({ adapter }) => !used.has(adapter))
    const placed: Entry[] = []
    for (const adapter of missing) {
      const place = idle.findIndex(({ room }) => room >= adapter.rank)
      if (place < 0) break
      const [{ from, room }] = idle.splice(place, 1) as [Entry]
      placed.push({ adapter, from, room })
    }
    if (placed.length < missing.length || this.#columns > 2 * wanted) {
      this.#rebuild([...used])
      return
    }
    const gone = new Set(placed.map(({ from }) => from))
    this.#entries = [...this.#entries.filter(({ from }) => !gone.has(from)), ...placed]
    this.#gains = undefined
    for (const entry of placed) this.#copy(entry)
  }

  #rebuild(adapters: readonly ResidentAdapter[]): void {
    this.#entries = []
    this.#columns = 0
    this.#gains = undefined
    for (const adapter of adapters) {
      this.#entries.push({ adapter, from: this.#columns, room: adapter.rank })
      this.#columns += adapter.rank
    }
    makeRoom(this.#blocks, this.#columns, this.#a, this.#b)
    for (const entry of this.#entries) this.#copy(entry)
  }

  /** What another adapter left in the room beyond this one's rank is never looked at: no mask covers it. */
  #copy({ adapter, from }: Entry): void {
    copyInto({ a: this.#a, b: this.#b, from, columns: this.#columns }, this.#blocks, adapter)
  }
}

/** Room for adapters: of each block A [in, m·columns] and B [m·columns, Σ out], or more. */
interface Room {
  readonly a: readonly Float32Array[]
  readonly b: readonly Float32Array[]
  readonly columns: number
}

/** Memory for so many columns of each block: what is there already is kept where it is enough, whatever is in it. */
function makeRoom(
  blocks: readonly StackedBlock[],
  columns: number,
  a: Float32Array[],
  b: Float32Array[],
): void {
  for (const [i, { members, widths, inner }] of blocks.entries()) {
    const size = members.length * columns
    if ((a[i]?.length ?? 0) >= size * inner) continue
    a[i] = new Float32Array(size * inner)
    b[i] = new Float32Array(size * sum(widths))
  }
}

/** Writes an adapter's matrices from a column on; what is not its own there becomes zero. */
function copyInto(
  { a, b, columns, from }: Room & { from: number },
  blocks: readonly StackedBlock[],
  { rank, blocks: parts }: ResidentAdapter,
): void {
  for (const [i, { members, widths, inner }] of blocks.entries()) {
    const m = members.length
    const width = sum(widths)
    b[i]!.fill(0, m * from * width, m * (from + rank) * width)
    let left = 0
    for (const [k, out] of widths.entries()) {
      const part = parts[i]![k]
      const row = m * from + k * rank
      putColumns(part?.a, { inner, rank }, { into: a[i]!, columns: m * columns, from: row })
      if (part)
        for (let r = 0; r < rank; r++)
          b[i]!.set(part.b.subarray(r * out, (r + 1) * out), (row + r) * width + left)
      left += out
    }
  }
}

/** Writes a matrix [inner, rank], or zeros, into columns of a wider one. */
function putColumns(
  matrix: Float32Array | undefined,
  { inner, rank }: { inner: number; rank: number },
  { into, columns, from }: { into: Float32Array; columns: number; from: number },
): void {
  for (let j = 0; j < inner; j++) {
    const at = j * columns + from
    const row = j * rank
    if (matrix) for (let r = 0; r < rank; r++) into[at + r] = matrix[row + r]!
    else into.fill(0, at, at + rank)
  }
}

/**
 * The matrices of one adapter that all rows use: made when another's were fed before, in the same memory, and the same
 * objects each time until then.
 */
export class LoneAdapter {
  #adapter: ResidentAdapter | undefined
  #feeds: Readonly<Record<string, HostTensor>> = {}
  #a: Float32Array[] = []
  #b: Float32Array[] = []

  /** Of block i `lora.<i>.a` [in, m·rank] and `lora.<i>.b` [m·rank, Σ out]. */
  feeds(
    blocks: readonly StackedBlock[],
    adapter: ResidentAdapter,
  ): Readonly<Record<string, HostTensor>> {
    if (this.#adapter === adapter) return this.#feeds
    const { rank } = adapter
    makeRoom(blocks, rank, this.#a, this.#b)
    copyInto({ a: this.#a, b: this.#b, from: 0, columns: rank }, blocks, adapter)
    this.#adapter = adapter
    this.#feeds = matricesOf(blocks, { a: this.#a, b: this.#b, columns: rank })
    return this.#feeds
  }

  clear(): void {
    this.#adapter = undefined
    this.#feeds = {}
    this.#a = []
    this.#b = []
  }
}

/** Of block i `lora.<i>.a` and `lora.<i>.b`, as much of its room as its columns take. */
function matricesOf(
  blocks: readonly StackedBlock[],
  { a, b, columns }: Room,
): Record<string, HostTensor> {
  return Object.fromEntries(
    blocks.flatMap(({ members, widths, inner }, i) => {
      const size = members.length * columns
      const width = sum(widths)
      return [
        [`lora.${i}.a`, float32([inner, size], a[i]!.subarray(0, inner * size))],
        [`lora.${i}.b`, float32([size, width], b[i]!.subarray(0, size * width))],
      ]
    }),
  )
}

/** Rows of one adapter read its own matrices. */
function alone(
  blocks: readonly StackedBlock[],
  adapter: ResidentAdapter,
  matrices: Readonly<Record<string, HostTensor>>,
  rows: number,
): StackFeeds {
  const feeds: Record<string, HostTensor> = { ...matrices }
  for (const m of new Set(blocks.map(({ members }) => members.length))) {
    const columns = m * adapter.rank
    feeds[`lora.mask.${m}`] = float32([rows, columns], new Float32Array(rows * columns).fill(1))
  }
  if (!adapter.gains) return { feeds, gained: false }
  for (const [i, gain] of gainsOf(blocks, [adapter]).entries()) feeds[`lora.${i}.gain`] = gain
  feeds['lora.rows'] = int64([rows], new Int32Array(rows).fill(1))
  return { feeds, gained: true }
}

/** Of each block a row of ones, for rows without an adapter, and a row for each adapter. */
const gainsOf = (
  blocks: readonly StackedBlock[],
  adapters: readonly ResidentAdapter[],
): HostTensor[] =>
  blocks.map(({ widths }, i) => {
    const width = sum(widths)
    const rows = new Float32Array((adapters.length + 1) * width).fill(1)
    for (const [k, { gains }] of adapters.entries()) if (gains) rows.set(gains[i]!, (k + 1) * width)
    return float32([adapters.length + 1, width], rows)
  })
