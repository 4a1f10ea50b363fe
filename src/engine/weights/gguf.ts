// The GGUF container, versions 2 and 3: metadata and where each tensor lies, every length checked before use.
// Knows no architecture.

import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import { elements } from '../tensor.ts'
import { FLOAT_BLOCKS, isFloatDtype } from './dequantise.ts'
import type { StoredDtype, StoredTensor } from './stored-tensor.ts'

export type GgufValue = number | bigint | boolean | string | readonly GgufValue[]

export interface Gguf {
  readonly version: number
  readonly metadata: ReadonlyMap<string, GgufValue>
  /** Under llama.cpp's names, dims in Hugging Face's order: outermost first. */
  readonly tensors: ReadonlyMap<string, StoredTensor>
}

// Metadata and tensor list of the largest vocabularies take some 20 MB; more than this is a lie.
const MAX_HEAD_BYTES = 256 * 2 ** 20
const MAX_TENSORS = 1_000_000
const MAX_DEPTH = 4

/** ggml_type numbers. Only those with a StoredDtype can be read; the others are named in the error. */
const TYPES: Readonly<Record<number, string>> = {
  0: 'F32',
  1: 'F16',
  2: 'Q4_0',
  3: 'Q4_1',
  6: 'Q5_0',
  7: 'Q5_1',
  8: 'Q8_0',
  9: 'Q8_1',
  10: 'Q2_K',
  11: 'Q3_K',
  12: 'Q4_K',
  13: 'Q5_K',
  14: 'Q6_K',
  15: 'Q8_K',
  16: 'IQ2_XXS',
  17: 'IQ2_XS',
  18: 'IQ3_XXS',
  19: 'IQ1_S',
  20: 'IQ4_NL',
  21: 'IQ3_S',
  22: 'IQ2_S',
  23: 'IQ4_XS',
  24: 'I8',
  25: 'I16',
  26: 'I32',
  27: 'I64',
  28: 'F64',
  29: 'IQ1_M',
  30: 'BF16',
}
const INTEGER_BYTES: Readonly<Record<string, number>> = { I8: 1, I16: 2, I32: 4, I64: 8, F64: 8 }

/** Reads and checks a file's metadata and tensor list; no tensor data. */
export async function readGguf(file: string): Promise<Gguf> {
  const handle = await open(file, 'r')
  try {
    const { size } = await handle.stat()
    for (let want = 2 ** 20; ; want *= 4) {
      const head = new Uint8Array(Math.min(want, size, MAX_HEAD_BYTES))
      let have = 0
      while (have < head.length) {
        const { bytesRead } = await handle.read(head, have, head.length - have, have)
        if (bytesRead === 0) break
        have += bytesRead
      }
      try {
        return parseGguf(head.subarray(0, have), file, size)
      } catch (error) {
        if (!(error instanceof HeadEnds) || head.length === size) throw error
        if (head.length === MAX_HEAD_BYTES)
          throw new Error(`${basename(file)}: the metadata takes more than ${MAX_HEAD_BYTES} bytes`)
      }
    }
  } finally {
    await handle.close()
  }
}

/** The bytes at hand end before the metadata does. */
class HeadEnds extends Error {}

function parseGguf(head: Uint8Array, file: string, size: number): Gguf {
  const where = basename(file)
  const r = new Reader(head, where, size)
  if (r.text(4, 'the magic') !== 'GGUF') throw new Error(`${where}: not a GGUF file`)
  const version = r.u32('the version')
  if (version !== 2 && version !== 3)
    throw new Error(`${where}: GGUF version ${version} is not supported, only 2 and 3`)
  const tensorCount = r.size('the tensor count')
  const keyCount = r.size('the metadata count')
  if (tensorCount > MAX_TENSORS)
    throw new Error(`${where}: the header claims ${tensorCount} tensors`)
  r.expectItems(keyCount, 13, 'metadata entries')

  const metadata = new Map<string, GgufValue>()
  for (let i = 0; i < keyCount; i++) {
    const key = r.string(`metadata key ${i}`)
    metadata.set(key, r.value(r.u32(`the type of ${key}`), key, 0))
  }

  r.expectItems(tensorCount, 24, 'tensors')
  const infos = Array.from({ length: tensorCount }, (_, i) => {
    const name = r.string(`the name of tensor ${i}`)
    const what = `tensor ${name}`
    const rank = r.u32(what)
    if (rank > 4) throw new Error(`${where}: ${what} claims ${rank} dimensions`)
    const dims = Array.from({ length: rank }, () => r.size(what)).reverse()
    return { name, dims, type: r.u32(what), at: r.size(what) }
  })

  const alignment = metadata.get('general.alignment') ?? 32
  if (typeof alignment !== 'number' || alignment < 1 || alignment > 65536)
    throw new Error(`${where}: general.alignment is ${alignment}`)
  const start = Math.ceil(r.position / alignment) * alignment
  const tensors = new Map<string, StoredTensor>()
  for (const { name, dims, type, at } of infos) {
    const what = `${where}: tensor ${name}`
    if (tensors.has(name)) throw new Error(`${what} is there twice`)
    const { dtype, bytes } = sizeOf(type, dims, what)
    if (at % alignment !== 0)
      throw new Error(`${what}: offset ${at} is no multiple of ${alignment}`)
    if (start + at + bytes > size)
      throw new Error(`${what}: its data ends at byte ${start + at + bytes}, the file at ${size}`)
    tensors.set(name, { name, dtype, dims, file, offset: start + at, bytes })
  }
  refuseOverlaps(tensors, where)
  return { version, metadata, tensors }
}

function sizeOf(type: number, dims: readonly number[], what: string) {
  const dtype = TYPES[type]
  const total = elements(dims)
  if (!Number.isSafeInteger(total)) throw new Error(`${what}: shape [${dims}] is too large`)
  const integer = dtype === undefined ? undefined : INTEGER_BYTES[dtype]
  if (integer) return { dtype: dtype as StoredDtype, bytes: total * integer }
  if (dtype === undefined || !isFloatDtype(dtype))
    throw new Error(`${what}: type ${dtype ?? type} is not supported`)
  const block = FLOAT_BLOCKS[dtype]
  if ((dims.at(-1) ?? 1) % block.values !== 0)
    throw new Error(`${what}: rows of ${dims.at(-1)} values do not hold whole ${dtype} blocks`)
  return { dtype, bytes: (total / block.values) * block.bytes }
}

function refuseOverlaps(tensors: ReadonlyMap<string, StoredTensor>, where: string) {
  const inOrder = [...tensors.values()].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes)
  for (const [i, tensor] of inOrder.entries()) {
    const next = inOrder[i + 1]
    if (next && tensor.offset + tensor.bytes > next.offset)
      throw new Error(`${where}: tensors ${tensor.name} and ${next.name} overlap`)
  }
}

const STRING = 8
const ARRAY = 9
const SCALAR_BYTES: Readonly<Record<number, number>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
}

/** Walks the head; throws HeadEnds where more bytes are needed, an Error where the file cannot hold them. */
class Reader {
  position = 0
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #where: string
  readonly #size: number
  readonly #utf8 = new TextDecoder()

  constructor(bytes: Uint8Array, where: string, size: number) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    this.#where = where
    this.#size = size
  }

  #take(count: number, what: string): number {
    const at = this.position
    if (at + count > this.#size)
      throw new Error(`${this.#where}: the file ends inside ${what}, at byte ${this.#size}`)
    if (at + count > this.#bytes.length) throw new HeadEnds(`${this.#where}: ${what}`)
    this.position = at + count
    return at
  }

  u32(what: string): number {
    return this.#view.getUint32(this.#take(4, what), true)
  }

  /** A u64 that counts or measures something. */
  size(what: string): number {
    const value = Number(this.#view.getBigUint64(this.#take(8, what), true))
    if (!Number.isSafeInteger(value)) throw new Error(`${this.#where}: ${what} claims ${value}`)
    return value
  }

  text(bytes: number, what: string): string {
    const at = this.#take(bytes, what)
    return this.#utf8.decode(this.#bytes.subarray(at, at + bytes))
  }

  string(what: string): string {
    return this.text(this.size(what), what)
  }

  /** A count is believed only if the rest of the file could hold so many. */
  expectItems(count: number, leastBytes: number, what: string) {
    if (count * leastBytes > this.#size - this.position)
      throw new Error(`${this.#where}: ${count} ${what} do not fit into the file`)
  }

  value(type: number, key: string, depth: number): GgufValue {
    if (type === STRING) return this.string(key)
    if (type === ARRAY) {
      if (depth >= MAX_DEPTH) throw new Error(`${this.#where}: ${key} is nested too deeply`)
      const itemType = this.u32(key)
      const count = this.size(key)
      this.expectItems(count, SCALAR_BYTES[itemType] ?? (itemType === STRING ? 8 : 12), key)
      const items: GgufValue[] = []
      for (let i = 0; i < count; i++) items.push(this.value(itemType, key, depth + 1))
      return items
    }
    const width = SCALAR_BYTES[type]
    if (width === undefined) throw new Error(`${this.#where}: ${key} has unknown type ${type}`)
    const at = this.#take(width, key)
    const v = this.#view
    switch (type) {
      case 0:
        return v.getUint8(at)
      case 1:
        return v.getInt8(at)
      case 2:
        return v.getUint16(at, true)
      case 3:
        return v.getInt16(at, true)
      case 4:
        return v.getUint32(at, true)
      case 5:
        return v.getInt32(at, true)
      case 6:
        return v.getFloat32(at, true)
      case 7:
        return v.getUint8(at) !== 0
      case 10:
        return narrow(v.getBigUint64(at, true))
      case 11:
        return narrow(v.getBigInt64(at, true))
      default:
        return v.getFloat64(at, true)
    }
  }
}

const narrow = (value: bigint): number | bigint => {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}
