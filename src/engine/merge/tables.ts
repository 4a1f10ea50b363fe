// Tables of tokens whose rows are put in one order: held whole, for any row may be asked for, by any input.

import { elements } from '../tensor.ts'
import { type OpenInput, readInput } from './input.ts'
import type { PlannedTensor } from './plan.ts'
import type { TableRows } from './tokens.ts'

/** The tables of a tensor's inputs, each with a row for every token of the result. */
export async function openTables(
  tensor: Pick<PlannedTensor, 'inputs' | 'round'>,
  { own, lent, padded }: TableRows,
): Promise<OpenInput[]> {
  const tables: Float32Array[] = []
  for (const input of tensor.inputs) {
    const { dims } = input.tensor
    tables.push(await readInput(input, { dims, ...(tensor.round && { round: tensor.round }) }))
  }
  const width = elements(tensor.inputs[0]!.tensor.dims.slice(1))
  const rowOf = (input: number, row: number) => {
    const table = tables[input]!
    if ((row + 1) * width > table.length)
      throw new Error(`the table has no row ${row}: its model has more tokens than rows`)
    return table.subarray(row * width, (row + 1) * width)
  }
  return own.map((rows, input) => {
    const write = (token: number, out: Float32Array) => {
      const row = rows[token]!
      if (row >= 0) return out.set(rowOf(input, row))
      const from = lent[token]!
      out.fill(0)
      for (const [other, at] of from) {
        const values = rowOf(other, at)
        for (let k = 0; k < width; k++) out[k] = out[k]! + values[k]!
      }
      if (from.length > 1) for (let k = 0; k < width; k++) out[k] = out[k]! / from.length
    }
    const padding = padded > 0 ? meanOf(rows.length, width, write) : undefined
    return {
      read(at, out) {
        for (let done = 0; done < out.length; done += width) {
          const token = (at + done) / width
          const row = out.subarray(done, done + width)
          if (token < rows.length) write(token, row)
          else row.set(padding!)
        }
      },
      close() {},
    }
  })
}

function meanOf(
  count: number,
  width: number,
  write: (row: number, out: Float32Array) => void,
): Float32Array {
  const sum = new Float64Array(width)
  const row = new Float32Array(width)
  for (let i = 0; i < count; i++) {
    write(i, row)
    for (let k = 0; k < width; k++) sum[k] = sum[k]! + row[k]!
  }
  return Float32Array.from(sum, (x) => x / count)
}
