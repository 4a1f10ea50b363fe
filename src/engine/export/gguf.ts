// The GGUF container, version 3, on its way out: metadata, tensor list, then the tensors one by one.

import { rotaryFrequencies } from '../models/rope.ts'
import { elements } from '../tensor.ts'
import { FLOAT_BLOCKS } from '../weights/dequantise.ts'
import { findFamily } from '../weights/families/index.ts'
import { bytesOf, type WrittenDtype } from '../weights/quantise.ts'
import type { ExportFile } from './file.ts'
import { type GgufField, type GgufFields, ggufArchitecture, ggufFields } from './gguf-metadata.ts'
import type { ExportModel, ExportTensor } from './model.ts'
import { pieces, weaveHeads } from './tensor-bytes.ts'

const ALIGNMENT = 32

/** ggml_type, and llama.cpp's name for a file of it. */
const KINDS: Readonly<Record<WrittenDtype, { type: number; file_type: number }>> = {
  F32: { type: 0, file_type: 0 },
  F16: { type: 1, file_type: 1 },
  Q4_0: { type: 2, file_type: 2 },
  Q4_1: { type: 3, file_type: 3 },
  Q5_0: { type: 6, file_type: 8 },
  Q5_1: { type: 7, file_type: 9 },
  Q8_0: { type: 8, file_type: 7 },
  Q4_K: { type: 12, file_type: 14 },
  Q5_K: { type: 13, file_type: 16 },
  BF16: { type: 30, file_type: 32 },
}

interface GgufTensor {
  readonly name: string
  readonly dims: readonly number[]
  readonly dtype: WrittenDtype
  read(): Promise<Float32Array>
}

/** One file; a matrix that is sensitive, or whose rows fill no blocks of `dtype`, is stored more exactly. */
export async function ggufFile(
  model: ExportModel,
  { name, dtype, statement }: { name: string; dtype: WrittenDtype; statement?: string | undefined },
): Promise<ExportFile> {
  const tensors = ggufTensors(model, dtype)
  const fields = await ggufFields(model, { name, statement, file_type: KINDS[dtype].file_type })
  const { head, offsets, bytes } = layout(fields, tensors)
  return {
    path: `${name}.gguf`,
    bytes,
    async *chunks() {
      yield head
      let at = head.length
      for (const [i, tensor] of tensors.entries()) {
        const gap = head.length + offsets[i]! - at
        if (gap > 0) yield new Uint8Array(gap)
        at += gap
        const values = await tensor.read()
        for (const piece of pieces(tensor.dtype, values)) {
          at += piece.length
          yield piece
        }
      }
      if (at < bytes) yield new Uint8Array(bytes - at)
    },
  }
}

function ggufTensors({ config, tensors }: ExportModel, dtype: WrittenDtype): GgufTensor[] {
  const architecture = ggufArchitecture(config)
  const names = findFamily(architecture)?.gguf
  if (!names) throw new Error(`A ${config.model_type} has no GGUF here.`)
  const theirs = new Map(Object.entries(names.names).map(([a, b]) => [b, a]))
  const layers = new Map(Object.entries(names.layers).map(([a, b]) => [b, a]))
  const nameOf = (name: string) => {
    const block = name.startsWith(`${names.layer}.`)
      ? /^(\d+)\.(.+)$/.exec(name.slice(names.layer.length + 1))
      : null
    const found = block
      ? layers.has(block[2]!) && `blk.${block[1]}.${layers.get(block[2]!)}`
      : theirs.get(name)
    if (!found) throw new Error(`tensor ${name} has no name in a GGUF`)
    return found
  }
  const headsOf = (name: string) =>
    /q_proj\.(weight|bias)$/.test(name)
      ? config.num_attention_heads
      : /k_proj\.(weight|bias)$/.test(name)
        ? config.num_key_value_heads
        : undefined
  const all = tensors.map((tensor) => {
    const name = nameOf(tensor.name)
    const heads = names.interleaved && headsOf(tensor.name)
    return {
      name,
      dims: tensor.dims,
      dtype: dtypeOf(tensor, name, { dtype, layers: config.num_hidden_layers }),
      read: async () => {
        const values = await tensor.read()
        return heads ? weaveHeads(values, tensor.dims[0]!, heads) : values
      },
    }
  })
  return [...ropeFactors(config), ...all]
}

/** llama.cpp reads the divisors that a scaled rope comes to. */
function ropeFactors(config: ExportModel['config']): GgufTensor[] {
  const kind = config.rope_scaling?.rope_type
  if (kind !== 'llama3' && kind !== 'factors') return []
  const scaled = rotaryFrequencies(config)!
  const { rope_scaling: _, ...plain } = config
  const factors = rotaryFrequencies(plain)!.map((f, i) => f / scaled[i]!)
  return [
    { name: 'rope_freqs.weight', dims: [factors.length], dtype: 'F32', read: async () => factors },
  ]
}

/** What llama.cpp takes where rows fill no blocks of 256. */
const FALLBACK: Readonly<Partial<Record<WrittenDtype, WrittenDtype>>> = {
  Q4_K: 'Q5_0',
  Q5_K: 'Q5_1',
}

/**
 * Norms and biases stay as they are; what reads and writes tokens is kept in eight bits where the rest has four. In Q4_K
 * what is sensitive has five, as in llama.cpp's Q4_K_S: `layers` is their number.
 */
function dtypeOf(
  { dims }: ExportTensor,
  name: string,
  { dtype, layers }: { dtype: WrittenDtype; layers: number },
): WrittenDtype {
  if (dims.length < 2 || dtype === 'F32' || name === 'position_embd.weight') return 'F32'
  const fits = (kind: WrittenDtype) => dims.at(-1)! % FLOAT_BLOCKS[kind].values === 0
  const four = dtype === 'Q4_0' || dtype === 'Q4_1' || dtype === 'Q4_K'
  const [, layer = '', part] = /^blk\.(\d+)\.(.+)\.weight$/.exec(name) ?? []
  const isSensitive =
    (part === 'attn_v' && Number(layer) < 4) ||
    (part === 'ffn_down' && Number(layer) < Math.floor(layers / 8))
  const wanted =
    four && /^(token_embd|output)\./.test(name)
      ? 'Q8_0'
      : dtype === 'Q4_K' && isSensitive
        ? 'Q5_K'
        : dtype
  const found = fits(wanted) ? wanted : FALLBACK[wanted]
  return found && fits(found) ? found : 'F16'
}

const up = (n: number) => Math.ceil(n / ALIGNMENT) * ALIGNMENT

function layout(fields: GgufFields, tensors: readonly GgufTensor[]) {
  const out = new Writer()
  out.text('GGUF')
  out.u32(3)
  out.u64(tensors.length)
  out.u64(fields.size)
  for (const [key, field] of fields) {
    out.string(key)
    out.field(field)
  }
  const offsets: number[] = []
  let size = 0
  for (const { name, dims, dtype } of tensors) {
    out.string(name)
    out.u32(dims.length)
    for (const dim of [...dims].reverse()) out.u64(dim)
    out.u32(KINDS[dtype].type)
    out.u64(size)
    offsets.push(size)
    size = up(size + bytesOf(dtype, elements(dims)))
  }
  const written = out.bytes()
  const head = new Uint8Array(up(written.length))
  head.set(written)
  return { head, offsets, bytes: head.length + size }
}

const TYPES = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 }

class Writer {
  readonly #parts: Buffer[] = []

  u32(n: number) {
    const part = Buffer.alloc(4)
    part.writeUInt32LE(n)
    this.#parts.push(part)
  }
  u64(n: number) {
    const part = Buffer.alloc(8)
    part.writeBigUInt64LE(BigInt(n))
    this.#parts.push(part)
  }
  text(text: string) {
    this.#parts.push(Buffer.from(text))
  }
  string(text: string) {
    const bytes = Buffer.from(text)
    this.u64(bytes.length)
    this.#parts.push(bytes)
  }
  field(field: GgufField) {
    switch (field.type) {
      case 'u32':
        this.u32(TYPES.u32)
        this.u32(field.value)
        return
      case 'f32':
        this.u32(TYPES.f32)
        this.#parts.push(raw(Float32Array.of(field.value)))
        return
      case 'bool':
        this.u32(TYPES.bool)
        this.#parts.push(Buffer.of(field.value ? 1 : 0))
        return
      case 'string':
        this.u32(TYPES.string)
        this.string(field.value)
        return
      case 'strings':
        this.array(TYPES.string, field.value.length)
        for (const item of field.value) this.string(item)
        return
      case 'i32s':
        this.array(TYPES.i32, field.value.length)
        this.#parts.push(raw(Int32Array.from(field.value)))
        return
      case 'f32s':
        this.array(TYPES.f32, field.value.length)
        this.#parts.push(raw(Float32Array.from(field.value)))
        return
      default:
        field satisfies never
    }
  }
  array(type: number, length: number) {
    this.u32(TYPES.array)
    this.u32(type)
    this.u64(length)
  }
  bytes(): Buffer {
    return Buffer.concat(this.#parts)
  }
}

const raw = ({ buffer, byteOffset, byteLength }: ArrayBufferView) =>
  Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength)
