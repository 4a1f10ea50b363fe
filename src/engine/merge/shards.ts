// Where the tensors of a result lie: in which file, at which byte.

import { elements } from '../tensor.ts'
import { layoutSafetensors } from '../weights/safetensors.ts'
import type { StoredTensor } from '../weights/stored-tensor.ts'

export interface Shard {
  readonly name: string
  readonly header: Uint8Array
  readonly bytes: number
}

export interface Place {
  readonly shard: number
  /** In the shard's file. */
  readonly offset: number
  readonly bytes: number
}

interface Unplaced {
  readonly name: string
  readonly dims: readonly number[]
  readonly dtype: StoredTensor['dtype']
  readonly inputs: readonly { readonly tensor: StoredTensor }[]
}

/** Bytes of an element; what is not here is copied, with as many as its input has. */
const WIDTH: Readonly<Record<string, number>> = { F32: 4, BF16: 2, F16: 2 }

/** By name, in files of `limit` bytes of tensors at most unless one alone has more. */
export function layOut<T extends Unplaced>(
  drafts: readonly T[],
  limit: number,
): { tensors: (T & Place)[]; shards: Shard[] } {
  const sorted = [...drafts].sort((a, b) => (a.name < b.name ? -1 : 1))
  const sizes = sorted.map(({ dims, dtype, inputs }) =>
    WIDTH[dtype] ? WIDTH[dtype] * elements(dims) : inputs[0]!.tensor.bytes,
  )
  const groups: number[][] = [[]]
  let filled = 0
  for (const [i, size] of sizes.entries()) {
    if (filled > 0 && filled + size > limit) {
      groups.push([])
      filled = 0
    }
    groups.at(-1)!.push(i)
    filled += size
  }
  const number = (i: number) => String(i).padStart(5, '0')
  const shards: Shard[] = []
  const tensors: (T & Place)[] = []
  for (const [s, group] of groups.entries()) {
    const { header, offsets, size } = layoutSafetensors(
      group.map((i) => sorted[i]!),
      { format: 'pt' },
      1,
    )
    const name =
      groups.length === 1
        ? 'model.safetensors'
        : `model-${number(s + 1)}-of-${number(groups.length)}.safetensors`
    shards.push({ name, header, bytes: header.length + size })
    for (const [k, i] of group.entries())
      tensors.push({
        ...sorted[i]!,
        shard: s,
        offset: header.length + offsets[k]!,
        bytes: sizes[i]!,
      })
  }
  return { tensors, shards }
}
