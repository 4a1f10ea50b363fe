import { expect, test } from 'vitest'
import { PREFIX_BLOCK, PrefixCache } from '../../../../src/engine/infer/prefix-cache.ts'

const tokens = (count: number, first = 0) => Array.from({ length: count }, (_, i) => first + i)
const piece = (from: number, count: number) => ({
  tokens: count,
  keys: new Float32Array(count).fill(from),
  values: new Float32Array(count),
})
const starts = (found: { keys: Float32Array }[]) => found.map(({ keys }) => keys[0])

test('what begins alike is found, block by block, up to where it parts', () => {
  const cache = new PrefixCache(1e6)
  const long = tokens(3 * PREFIX_BLOCK + 5)
  cache.keep('a', long, piece)
  expect(starts(cache.find('a', long, long.length))).toEqual([0, 32, 64])
  expect(cache.find('a', long, PREFIX_BLOCK * 2 - 1)).toHaveLength(1)
  const other = [...long.slice(0, 40), 7, ...long.slice(41)]
  expect(cache.find('a', other, other.length)).toHaveLength(1)
  expect(cache.find('b', long, long.length)).toHaveLength(0)
  // The same tokens after another beginning are another past.
  expect(cache.find('a', long.slice(PREFIX_BLOCK), 64)).toHaveLength(0)
})

test('a block that is there is not copied again', () => {
  const cache = new PrefixCache(1e6)
  const copied: number[] = []
  const noted = (from: number, count: number) => {
    copied.push(from)
    return piece(from, count)
  }
  cache.keep('a', tokens(64), noted)
  cache.keep('a', [...tokens(64), ...tokens(32, 500)], noted)
  expect(copied).toEqual([0, 32, 64])
})

test('memory is bounded: the longest unused goes, and is counted', () => {
  const cache = new PrefixCache(3 * 400)
  const keep = (first: number) => cache.keep('a', tokens(32, first), piece)
  const has = (first: number) => cache.find('a', tokens(32, first), 32).length === 1
  for (const first of [1000, 2000]) keep(first)
  expect(has(1000)).toBe(true)
  for (const first of [3000, 4000]) keep(first)
  expect([1000, 2000, 3000, 4000].map(has)).toEqual([false, false, true, true])
  expect(cache.usage.evictions).toBe(2)
  expect(cache.usage.bytes).toBeLessThanOrEqual(3 * 400)
})

test('where not all of a row has room, its beginning stays', () => {
  const cache = new PrefixCache(3 * 400)
  const long = tokens(5 * PREFIX_BLOCK, 1000)
  cache.keep('a', long, piece)
  expect(cache.usage.evictions).toBeGreaterThan(0)
  const kept = starts(cache.find('a', long, long.length))
  expect(kept.slice(0, 2)).toEqual([0, 32])
  expect(cache.usage.bytes).toBeLessThanOrEqual(3 * 400)
  // Another row takes the end of it, not what both could begin with.
  cache.keep('a', [...long.slice(0, PREFIX_BLOCK), ...tokens(PREFIX_BLOCK, 7000)], piece)
  expect(starts(cache.find('a', long, long.length))[0]).toBe(0)
})
