// The safetensors format: a bounds-checked header reader and a writer of deterministic bytes.
// Believes nothing a header says before it was held against the file's size.

import { existsSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { elements } from '../tensor.ts'
import { FLOAT_BLOCKS } from './dequantise.ts'
import type { StoredDtype, StoredTensor } from './stored-tensor.ts'

export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, StoredTensor>
  readonly metadata: Readonly<Record<string, string>>
}

/** A float32 tensor to be written. */
export interface NamedTensor {
  readonly name: string
  readonly dims: readonly number[]
  readonly data: Float32Array
}

// The format's own limit. A longer header is a lie or not ours to hold in memory.
const MAX_HEADER_BYTES = 100_000_000
export const DATA_ALIGNMENT = 64

const DTYPE_BYTES: Readonly<Record<string, number>> = {
  F32: FLOAT_BLOCKS.F32.bytes,
  F16: FLOAT_BLOCKS.F16.bytes,
  BF16: FLOAT_BLOCKS.BF16.bytes,
  F64: 8,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
} satisfies Partial<Record<StoredDtype, number>>

/** Reads and checks one file's header. */
export async function readSafetensorsHeader(file: string): Promise<SafetensorsHeader> {
  const handle = await open(file, 'r')
  try {
    const { size } = await handle.stat()
    const where = basename(file)
    if (size < 8) throw new Error(`${where}: ${size} bytes are too few for a safetensors file`)
    const prefix = new Uint8Array(8)
    await handle.read(prefix, 0, 8, 0)
    const length = Number(new DataView(prefix.buffer).getBigUint64(0, true))
    if (length > MAX_HEADER_BYTES || length > size - 8)
      throw new Error(`${where}: the header claims ${length} bytes, the file has ${size - 8} left`)
    const json = new Uint8Array(length)
    const { bytesRead } = await handle.read(json, 0, length, 8)
    if (bytesRead !== length) throw new Error(`${where}: the file ends inside its header`)
    return parseHeader(json, file, 8 + length, size)
  } finally {
    await handle.close()
  }
}

/** The tensors of a folder: `model.safetensors`, or all shards its index names. */
export async function readSafetensorsFolder(
  folder: string,
): Promise<ReadonlyMap<string, StoredTensor>> {
  const single = join(folder, 'model.safetensors')
  if (existsSync(single)) return (await readSafetensorsHeader(single)).tensors

  const index = join(folder, 'model.safetensors.index.json')
  if (!existsSync(index))
    throw new Error(
      `${basename(folder)}: neither model.safetensors nor model.safetensors.index.json is there`,
    )
  const shards = await readIndex(index)
  const tensors = new Map<string, StoredTensor>()
  for (const shard of [...new Set(shards.values())].sort()) {
    const file = join(folder, shard)
    if (!existsSync(file)) throw new Error(`${basename(index)}: its shard ${shard} is missing`)
    for (const [name, tensor] of (await readSafetensorsHeader(file)).tensors)
      if (shards.get(name) === shard) tensors.set(name, tensor)
  }
  for (const [name, shard] of shards)
    if (!tensors.has(name)) throw new Error(`${shard}: tensor ${name} of the index is not in it`)
  return tensors
}

/** The bytes of a file with these tensors. The same tensors in any order give the same bytes. */
export function writeSafetensors(
  tensors: Iterable<NamedTensor>,
  metadata: Readonly<Record<string, string>> = { format: 'pt' },
): Uint8Array {
  const sorted = [...tensors].sort((a, b) => (a.name < b.name ? -1 : 1))
  for (const { name, dims, data } of sorted)
    if (elements(dims) !== data.length)
      throw new Error(`tensor ${name}: shape [${dims}] does not hold ${data.length} values`)
  const { header, offsets, size } = layoutSafetensors(sorted, metadata, 1)
  const out = new Uint8Array(header.length + size)
  out.set(header)
  for (const [i, { data }] of sorted.entries())
    out.set(
      new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
      header.length + offsets[i]!,
    )
  return out
}

/**
 * The header (length prefix and padding included, a multiple of DATA_ALIGNMENT) of a file of tensors, float32 unless
 * they say otherwise, written in this order, and each tensor's offset in the data, which is a multiple of `alignment`.
 */
export function layoutSafetensors(
  tensors: readonly { name: string; dims: readonly number[]; dtype?: StoredDtype }[],
  metadata: Readonly<Record<string, string>>,
  alignment: number,
): { header: Uint8Array; offsets: number[]; size: number } {
  const entries: Record<string, unknown> = {}
  if (Object.keys(metadata).length > 0)
    entries.__metadata__ = Object.fromEntries(Object.entries(metadata).sort())
  const offsets: number[] = []
  let size = 0
  for (const { name, dims, dtype = 'F32' } of tensors) {
    if (Object.hasOwn(entries, name)) throw new Error(`tensor ${name} is given twice`)
    const bytes = DTYPE_BYTES[dtype]! * elements(dims)
    entries[name] = { dtype, shape: [...dims], data_offsets: [size, size + bytes] }
    offsets.push(size)
    size = roundUp(size + bytes, alignment)
  }
  const json = new TextEncoder().encode(JSON.stringify(entries))
  const header = new Uint8Array(roundUp(8 + json.length, DATA_ALIGNMENT)).fill(0x20)
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true)
  header.set(json, 8)
  return { header, offsets, size }
}

const roundUp = (n: number, to: number) => Math.ceil(n / to) * to

function parseHeader(json: Uint8Array, file: string, start: number, size: number) {
  const where = basename(file)
  let root: unknown
  try {
    root = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json))
  } catch (cause) {
    throw new Error(`${where}: the header is not JSON`, { cause })
  }
  if (!isRecord(root)) throw new Error(`${where}: the header is not a JSON object`)

  const metadata: Record<string, string> = {}
  const tensors = new Map<string, StoredTensor>()
  for (const [name, entry] of Object.entries(root)) {
    if (name === '__metadata__') {
      if (!isRecord(entry)) throw new Error(`${where}: __metadata__ is not an object`)
      for (const [key, value] of Object.entries(entry)) metadata[key] = String(value)
    } else tensors.set(name, parseEntry(name, entry, { file, start, size }))
  }
  refuseOverlaps(tensors, where)
  return { tensors, metadata }
}

function parseEntry(
  name: string,
  entry: unknown,
  { file, start, size }: { file: string; start: number; size: number },
): StoredTensor {
  const where = `${basename(file)}: tensor ${name}`
  if (!isRecord(entry)) throw new Error(`${where}: its entry is not an object`)
  const { dtype, shape, data_offsets } = entry
  const width = typeof dtype === 'string' ? DTYPE_BYTES[dtype] : undefined
  if (width === undefined || typeof dtype !== 'string')
    throw new Error(`${where}: unknown dtype ${JSON.stringify(dtype)}`)
  if (!isSizes(shape))
    throw new Error(`${where}: shape ${JSON.stringify(shape)} is not a list of sizes`)
  if (!isSizes(data_offsets) || data_offsets.length !== 2)
    throw new Error(
      `${where}: data_offsets ${JSON.stringify(data_offsets)} is not a pair of offsets`,
    )

  const [begin, end] = data_offsets as [number, number]
  if (end < begin) throw new Error(`${where}: data_offsets [${begin}, ${end}] run backwards`)
  if (start + end > size)
    throw new Error(`${where}: its data ends at byte ${start + end}, the file at ${size}`)
  const expected = elements(shape) * width
  if (expected !== end - begin)
    throw new Error(
      `${where}: ${dtype} [${shape}] takes ${expected} bytes, its offsets span ${end - begin}`,
    )
  return {
    name,
    dtype: dtype as StoredDtype,
    dims: shape,
    file,
    offset: start + begin,
    bytes: end - begin,
  }
}

function refuseOverlaps(tensors: ReadonlyMap<string, StoredTensor>, where: string) {
  const inOrder = [...tensors.values()].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes)
  for (const [i, tensor] of inOrder.entries()) {
    const next = inOrder[i + 1]
    if (next && tensor.offset + tensor.bytes > next.offset)
      throw new Error(`${where}: tensors ${tensor.name} and ${next.name} overlap`)
  }
}

async function readIndex(index: string): Promise<Map<string, string>> {
  const where = basename(index)
  let root: unknown
  try {
    root = JSON.parse(await readFile(index, 'utf8'))
  } catch (cause) {
    throw new Error(`${where}: not JSON`, { cause })
  }
  const map = isRecord(root) ? root.weight_map : undefined
  if (!isRecord(map)) throw new Error(`${where}: weight_map is missing`)
  const shards = new Map<string, string>()
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== 'string' || basename(shard) !== shard || shard === '..')
      throw new Error(
        `${where}: tensor ${name} lies in ${JSON.stringify(shard)}, which is no file name`,
      )
    shards.set(name, shard)
  }
  return shards
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0)
