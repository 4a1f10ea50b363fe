import { expect, test } from 'vitest'
import { KvCache } from '../../../../src/engine/infer/kv-cache.ts'

const shape = { layers: 2, heads: 2, headDim: 4 }

/** Appends tokens whose keys and values are `mark`, `mark` + 1, … everywhere. */
function fill(cache: KvCache, slot: number, tokens: number, mark: number) {
  const data = Float32Array.from({ length: tokens * 8 }, (_, i) => mark + Math.floor(i / 8))
  const layer = { key: data, value: data }
  cache.append(slot, [1, tokens], [layer, layer])
}

function marks(cache: KvCache, slot: number): number[] {
  const { key, value } = cache.views(slot, 1, false)[1]!
  const C = cache.capacity
  const rows = Array.from({ length: cache.length(slot) }, (_, t) => {
    const all = [0, 1].flatMap((g) =>
      [0, 1, 2, 3].flatMap((k) => [
        Number(key.data[(g * 4 + k) * C + t]),
        Number(value.data[(g * C + t) * 4 + k]),
      ]),
    )
    expect(new Set(all).size).toBe(1)
    return all[0]!
  })
  return rows
}

test('growing keeps what every slot holds', () => {
  const cache = new KvCache(shape)
  const first = cache.open(10)
  fill(cache, first, 3, 100)
  const second = cache.open(500)
  fill(cache, second, 2, 200)
  expect(cache.views(0, 2, false)[0]!.key.dims).toEqual([2, 2, 1, 4, 512])
  expect(cache.views(0, 2, false)[0]!.value.dims).toEqual([2, 2, 1, 512, 4])
  expect(cache.views(0, 2, true)[0]!.key.dims).toEqual([4, 1, 4, 512])
  expect(marks(cache, first)).toEqual([100, 101, 102])
  expect(marks(cache, second)).toEqual([200, 201])
})

test('closing a slot moves the last one into its place', () => {
  const cache = new KvCache(shape)
  for (const mark of [100, 200, 300]) fill(cache, cache.open(10), 2, mark)
  expect(cache.close(0)).toBe(2)
  expect(cache.count).toBe(2)
  expect(marks(cache, 0)).toEqual([300, 301])
  expect(marks(cache, 1)).toEqual([200, 201])
  expect(cache.close(1)).toBeUndefined()
})

test('pieces go from one cache into another, end to end', () => {
  const cache = new KvCache(shape)
  fill(cache, cache.open(10), 5, 100)
  const other = new KvCache(shape)
  other.open(1)
  other.put(0, cache.piece(0, 0, 2))
  other.put(0, cache.piece(0, 2, 3))
  expect(marks(other, 0)).toEqual([100, 101, 102, 103, 104])
  const copy = cache.open(10)
  cache.copy(cache, 0, copy, 2)
  expect(marks(cache, copy)).toEqual([100, 101])
})

test('what was appended in vain is forgotten', () => {
  const cache = new KvCache(shape)
  fill(cache, cache.open(10), 5, 100)
  cache.truncate(0, 2)
  fill(cache, 0, 1, 500)
  expect(marks(cache, 0)).toEqual([100, 101, 500])
  expect(() => cache.truncate(0, 9)).toThrow('a slot of 3 tokens cannot be cut to 9')
})

test('an empty cache gives its memory back', () => {
  const cache = new KvCache(shape)
  cache.open(4000)
  cache.close(0)
  expect(cache.bytes).toBe(0)
  cache.open(10)
  expect(cache.capacity).toBe(64)
})
