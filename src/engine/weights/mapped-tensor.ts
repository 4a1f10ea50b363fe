// One mapped tensor as numbers in memory, whole or some of its rows.

import type { MappedTensor } from './checkpoint.ts'
import { readTensor } from './stored-tensor.ts'

/** The tensor, or those of its rows, in this order. */
export async function readMapped(tensor: MappedTensor, rows?: Int32Array): Promise<Float32Array> {
  const all = await readTensor({ ...tensor, dtype: 'F32' })
  if (!rows) return all
  const width = tensor.dims.slice(1).reduce((n, d) => n * d, 1)
  const some = new Float32Array(rows.length * width)
  for (const [i, row] of rows.entries())
    some.set(all.subarray(row * width, (row + 1) * width), i * width)
  return some
}
