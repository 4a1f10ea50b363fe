// A tensor that comes in pieces merges to the bytes of one that comes whole, by every method.

import { describe, expect, test } from 'vitest'
import { drawing } from '../../../../src/engine/merge/draws.ts'
import { type MergeMethod, mergeWhole, type Piece } from '../../../../src/engine/merge/method.ts'
import { MERGE_METHODS } from '../../../../src/engine/merge/methods.ts'
import { normal } from '../../../../src/engine/random.ts'

const DIMS = [14, 24] as const
const COUNT = 14 * 24

/** Some places are equal, so that ties are cut across pieces. */
const tensor = (seed: number) =>
  Float32Array.from({ length: COUNT }, (_, k) => Math.round(40 * normal(seed, 0, k)) / 40)

const SETTINGS: Readonly<Record<string, object>> = {
  nuslerp_rows: { nuslerp_flatten: false },
  nuslerp_columns: { nuslerp_flatten: false, nuslerp_row_wise: true },
  sce: { select_topk: 0.3 },
  model_stock_rows: { filter_wise: true },
}
const cases: [string, MergeMethod][] = [
  ...[...MERGE_METHODS].filter(([name]) => name !== 'passthrough'),
  ...(['nuslerp_rows', 'nuslerp_columns', 'model_stock_rows'] as const).map(
    (name): [string, MergeMethod] => [name, MERGE_METHODS.get(name.replace(/_[a-z]+$/, ''))!],
  ),
]

describe.each(cases)('%s', (name, method) => {
  const count = (method.others.max ?? 3) + (method.base === 'required' ? 1 : 0)
  const tensors = Array.from({ length: count }, (_, i) => tensor(i + 1))
  const told = (of: 'merge' | 'input') =>
    Object.fromEntries(
      Object.entries(method.parameters)
        .filter(([, spec]) => (spec.of === 'merge') === (of === 'merge'))
        .map(([key, spec]) => [key, spec.default ?? 0.4]),
    )
  const group = {
    name: 'w',
    dims: DIMS,
    inputs: tensors.map((_, i) => ({
      isBase: method.base === 'required' && i === 0,
      parameters: { ...told('input'), ...(method.parameters.density && { density: 0.5 }) },
    })),
    parameters: { ...told('merge'), ...SETTINGS[name] },
    random: drawing(7, 'w'),
  }
  const whole = mergeWhole(method, group, tensors)

  test.each([1, 3, 5])('in pieces of %s rows', (rows) => {
    const pieces = function* (): Generator<Piece> {
      for (let at = 0; at < COUNT; at += rows * 24)
        yield { at, data: tensors.map((one) => one.slice(at, at + rows * 24)) }
    }
    const scan = (visit: (piece: Piece) => void) => {
      for (const piece of pieces()) visit(piece)
    }
    const merge = method.begin({ ...group, scan })
    const merged = [...pieces()].flatMap((piece) => [...merge(piece)])
    expect(merged).toEqual([...whole])
  })
})
