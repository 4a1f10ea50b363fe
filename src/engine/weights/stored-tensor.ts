// Where a tensor's bytes lie in a file, and how they are read as float32 with bounded memory.
// Knows no file format's header.

import { type FileHandle, open } from 'node:fs/promises'
import { basename } from 'node:path'
import { elements } from '../tensor.ts'
import { dequantise, FLOAT_BLOCKS, type FloatDtype, isFloatDtype } from './dequantise.ts'

export type StoredDtype =
  | FloatDtype
  | 'F64'
  | 'F8_E4M3'
  | 'F8_E5M2'
  | 'I64'
  | 'I32'
  | 'I16'
  | 'I8'
  | 'U64'
  | 'U32'
  | 'U16'
  | 'U8'
  | 'BOOL'

/** Where one tensor's bytes lie in a file. */
export interface StoredTensor {
  readonly name: string
  readonly dtype: StoredDtype
  readonly dims: readonly number[]
  readonly file: string
  readonly offset: number
  readonly bytes: number
  /**
   * llama.cpp stores the rows of q and k of a llama with the halves of each head interleaved; this is the
   * number of heads they lie in. Readers put the rows back into Hugging Face's order.
   */
  readonly interleaved_heads?: number
  /** The file holds [in, out] where `dims` say [out, in]; readers turn it. */
  readonly transposed?: true
}

/** Whether the values lie in the file in another order than the reader's. */
export const isRearranged = ({ interleaved_heads, transposed }: StoredTensor): boolean =>
  interleaved_heads !== undefined || transposed === true

const CHUNK_BYTES = 4 * 2 ** 20

/** The whole tensor as float32. */
export async function readTensor(tensor: StoredTensor): Promise<Float32Array> {
  const out = new Float32Array(elements(tensor.dims))
  let at = 0
  for await (const chunk of readTensorChunks(tensor)) {
    out.set(chunk, at)
    at += chunk.length
  }
  return out
}

/** The tensor as float32 in pieces of some megabytes, in order. A piece is only valid until the next. */
export async function* readTensorChunks(
  tensor: StoredTensor,
): AsyncGenerator<Float32Array, void, undefined> {
  if (tensor.transposed) {
    yield transpose(await readTensor(asStored(tensor)), tensor.dims)
    return
  }
  const { dtype, bytes } = tensor
  if (!isFloatDtype(dtype))
    throw new Error(`${describe(tensor)}: ${dtype} cannot be read as float32`)
  const block = FLOAT_BLOCKS[dtype]
  const unit = unitBytes(tensor, dtype)
  if (unit === 0 || bytes === 0) return

  const step = Math.max(unit, unit * Math.floor(CHUNK_BYTES / unit))
  const handle = await open(tensor.file, 'r')
  try {
    const raw = new Uint8Array(Math.min(step, bytes))
    const values = new Float32Array((raw.length / block.bytes) * block.values)
    const scratch = tensor.interleaved_heads ? new Float32Array(values.length) : undefined
    for (let at = 0; at < bytes; at += step) {
      const piece = raw.subarray(0, Math.min(step, bytes - at))
      await readFully(handle, piece, tensor.offset + at, tensor)
      const count = (piece.length / block.bytes) * block.values
      const out = values.subarray(0, count)
      dequantise(dtype, piece, out)
      yield scratch ? unweaveHeads(out, scratch.subarray(0, count), tensor) : out
    }
  } finally {
    await handle.close()
  }
}

/** The least that is read at once: a head of an interleaved tensor, else one block. */
function unitBytes(tensor: StoredTensor, dtype: FloatDtype): number {
  if (!tensor.interleaved_heads) return FLOAT_BLOCKS[dtype].bytes
  return tensor.bytes / tensor.interleaved_heads
}

/** Row 2i + j of each stored head is row j·(K/2) + i of Hugging Face's. */
function unweaveHeads(rows: Float32Array, out: Float32Array, tensor: StoredTensor): Float32Array {
  const [height = 0, width = 1] = tensor.dims // a bias is one value a row
  const K = height / tensor.interleaved_heads!
  for (let head = 0; head < rows.length; head += K * width)
    for (let i = 0; i < K / 2; i++)
      for (let j = 0; j < 2; j++) {
        const from = head + (2 * i + j) * width
        out.set(rows.subarray(from, from + width), head + (j * (K / 2) + i) * width)
      }
  return out
}

function asStored({ transposed: _, ...tensor }: StoredTensor): StoredTensor {
  return { ...tensor, dims: [...tensor.dims].reverse() }
}

/** values [in, out] → [out, in]: a matrix at once, for no row of it is ready before the last value. */
function transpose(values: Float32Array, dims: readonly number[]): Float32Array {
  const [out = 0, inner = 0] = dims
  const turned = new Float32Array(values.length)
  for (let i = 0; i < inner; i++)
    for (let o = 0; o < out; o++) turned[o * inner + i] = values[i * out + o]!
  return turned
}

async function readFully(
  handle: FileHandle,
  into: Uint8Array,
  position: number,
  tensor: StoredTensor,
) {
  let done = 0
  while (done < into.length) {
    const { bytesRead } = await handle.read(into, done, into.length - done, position + done)
    if (bytesRead === 0) throw new Error(`${describe(tensor)}: the file ends inside the tensor`)
    done += bytesRead
  }
}

const describe = ({ file, name }: StoredTensor) => `${basename(file)}: tensor ${name}`
