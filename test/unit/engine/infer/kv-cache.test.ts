import { expect, test } from 'vitest'
import { KvCache } from '../../../../src/engine/infer/kv-cache.ts'

const shape = { layers: 2, heads: 2, headDim: 4 }

/** Writes `mark` as the key of every token that a slot keeps, in every head. */
function fill(cache: KvCache, slot: number, tokens: number, mark: number) {
  const { key } = cache.view(1, slot, 1)
  const capacity = key.dims[2]!
  for (let head = 0; head < 2; head++)
    for (let t = 0; t < tokens; t++)
      (key.data as Float32Array).fill(
        mark + t,
        (head * capacity + t) * 4,
        (head * capacity + t + 1) * 4,
      )
  cache.setLength(slot, tokens)
}

function marks(cache: KvCache, slot: number): number[] {
  const { key } = cache.view(1, slot, 1)
  const capacity = key.dims[2]!
  const of = (head: number) =>
    Array.from({ length: cache.length(slot) }, (_, t) =>
      Number(key.data[(head * capacity + t) * 4]),
    )
  expect(of(0)).toEqual(of(1))
  return of(0)
}

test('growing keeps what every slot holds', () => {
  const cache = new KvCache(shape)
  const first = cache.open(10)
  fill(cache, first, 3, 100)
  const second = cache.open(500)
  fill(cache, second, 2, 200)
  expect(cache.view(0, 0, 2).key.dims).toEqual([2, 2, 512, 4])
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

test('a copy keeps the first tokens of another slot and goes its own way', () => {
  const cache = new KvCache(shape)
  for (const mark of [100, 200]) fill(cache, cache.open(10), 3, mark)
  const copy = cache.open(10)
  cache.copy(0, copy, 2)
  expect(marks(cache, copy)).toEqual([100, 101])
  fill(cache, 0, 3, 500)
  expect(marks(cache, copy)).toEqual([100, 101])
  expect(marks(cache, 1)).toEqual([200, 201, 202])
})

test('an empty cache gives its memory back', () => {
  const cache = new KvCache(shape)
  cache.open(4000)
  cache.close(0)
  cache.open(10)
  expect(cache.view(0, 0, 1).key.dims).toEqual([1, 2, 128, 4])
})
