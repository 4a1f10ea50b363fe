// One tensor of a merge: read from each model, merged, rounded, and written to its place, in pieces of whole rows.

import { writeSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { elements } from '../tensor.ts'
import { isFloatDtype } from '../weights/dequantise.ts'
import { drawing } from './draws.ts'
import { areNumbers, type OpenInput, openInput, refuseNoNumbers } from './input.ts'
import type { MergeMethod, MergePiece, Piece } from './method.ts'
import { MERGE_METHODS } from './methods.ts'
import type { PlannedTensor } from './plan.ts'
import { encoderOf } from './rounding.ts'
import { openTables } from './tables.ts'

export interface MergeTensorRequest {
  method: string
  seed: number
  tensor: PlannedTensor
  /** The shard that it lies in. */
  file: string
}

/** Elements of an input that are merged at once, unless a row has more: a few inputs stay in a core's cache. */
const PIECE = 2 ** 14

/** Merges one tensor and writes it. Throws what is wrong with it by its name. */
export async function mergeTensor({
  method,
  seed,
  tensor,
  file,
}: MergeTensorRequest): Promise<void> {
  const merging = MERGE_METHODS.get(method)
  if (!merging) throw new Error(`merge method ${method} is not known`)
  const handle = await open(file, 'r+')
  const inputs: OpenInput[] = []
  try {
    if (!isFloatDtype(tensor.dtype)) return await copy(tensor, handle)
    if (tensor.table) inputs.push(...(await openTables(tensor, tensor.table)))
    else for (const input of tensor.inputs) inputs.push(await openInput(input, tensor))
    mergeInto(handle.fd, inputs, { merging, seed, tensor })
  } finally {
    for (const input of inputs) input.close()
    await handle.close()
  }
}

/** At once and without waiting: the thread has nothing else to do. */
function mergeInto(
  fd: number,
  inputs: readonly OpenInput[],
  { merging, seed, tensor }: { merging: MergeMethod; seed: number; tensor: PlannedTensor },
): void {
  const { name, dims, parameters, dtype, copied } = tensor
  const total = elements(dims)
  const width = dims.length < 2 ? total : dims.at(-1)!
  const step = Math.max(width, width * Math.floor(PIECE / width))
  const rooms = inputs.map(() => new Float32Array(Math.min(step, total)))
  const pieces = function* (): Generator<Piece> {
    for (let at = 0; at < total; at += step) {
      const count = Math.min(step, total - at)
      const data = rooms.map((room) => room.subarray(0, count))
      for (const [i, input] of inputs.entries()) input.read(at, data[i]!)
      yield { at, data }
    }
  }
  const mergePiece: MergePiece = copied
    ? ({ data }) => data[0]!
    : merging.begin({
        name,
        dims,
        inputs: tensor.inputs,
        parameters,
        random: drawing(seed, name),
        scan: (visit) => {
          for (const piece of pieces()) visit(piece)
        },
      })
  const look = ({ data }: Piece) => {
    for (const [i, values] of data.entries()) refuseNoNumbers(tensor.inputs[i]!.tensor, values)
  }
  const encoder = encoderOf(dtype as 'F32' | 'F16' | 'BF16')
  for (const piece of pieces()) {
    if (!merging.carriesNoNumbers) look(piece)
    const merged = mergePiece(piece)
    if (!areNumbers(merged)) {
      for (const again of pieces()) look(again)
      throw new Error(`tensor ${name}: the merge gives a number that is not finite`)
    }
    writeFully(fd, encoder(merged), tensor.offset + piece.at * (tensor.bytes / total))
  }
}

async function copy({ inputs, offset }: PlannedTensor, into: FileHandle): Promise<void> {
  const { tensor } = inputs[0]!
  const from = await open(tensor.file, 'r')
  try {
    const bytes = new Uint8Array(tensor.bytes)
    await from.read(bytes, 0, bytes.length, tensor.offset)
    writeFully(into.fd, bytes, offset)
  } finally {
    await from.close()
  }
}

function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(fd, bytes, done, bytes.length - done, position + done)
}
