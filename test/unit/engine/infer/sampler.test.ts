import { expect, test } from 'vitest'
import type { Sampling } from '../../../../src/engine/infer/request.ts'
import { only, penalise, sample } from '../../../../src/engine/infer/sampler.ts'

const sampling = (change: Partial<Sampling> = {}): Sampling => ({
  temperature: 1,
  top_p: 1,
  seed: 1,
  ...change,
})

const logits = (...p: number[]) => Float32Array.from(p, Math.log)

/** How often each token is drawn over `count` positions. */
function draw(x: Float32Array, change: Partial<Sampling>, count = 20_000) {
  const counts = new Array<number>(x.length).fill(0)
  for (let i = 0; i < count; i++) counts[sample(x, sampling(change), 0, i).token]! += 1
  return counts.map((n) => n / count)
}

test('temperature 0 takes the highest logit, the lowest id among equals', () => {
  const greedy = sampling({ temperature: 0 })
  expect(sample(Float32Array.of(-3, 2, 5, 5, 1), greedy, 0, 0)).toEqual({ token: 2 })
  expect(sample(Float32Array.of(Number.NaN, -8, -7), greedy, 0, 0)).toEqual({ token: 2 })
})

test('logits without a finite maximum are an error, not a token', () => {
  for (const bad of [Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY])
    expect(() => sample(Float32Array.of(bad, bad), sampling(), 0, 0)).toThrow(/finite maximum/)
})

test('draws have the probabilities of the softmax', () => {
  const p = [0.5, 0.25, 0.15, 0.1]
  const seen = draw(logits(...p), {})
  // Five standard deviations of a share of 20,000 draws are at most 0.018.
  for (const [i, share] of seen.entries()) expect(Math.abs(share - p[i]!)).toBeLessThan(0.018)
})

test('temperature sharpens and flattens: p^(1/T), normalised', () => {
  const p = [0.6, 0.3, 0.1]
  for (const temperature of [0.5, 2]) {
    const powers = p.map((x) => x ** (1 / temperature))
    const total = powers.reduce((a, b) => a + b)
    const seen = draw(logits(...p), { temperature })
    for (const [i, share] of seen.entries())
      expect(Math.abs(share - powers[i]! / total)).toBeLessThan(0.018)
  }
})

test('top_p keeps the smallest set that reaches it, with its own proportions', () => {
  const x = logits(0.1, 0.5, 0.25, 0.15)
  const seen = draw(x, { top_p: 0.7 })
  expect(seen[0]).toBe(0)
  expect(seen[3]).toBe(0)
  expect(Math.abs(seen[1]! - 2 / 3)).toBeLessThan(0.018)
})

test('top_p at its edges: 0 and a hair are greedy, below the whole drops only the last', () => {
  const x = logits(0.1, 0.5, 0.25, 0.15)
  expect(draw(x, { top_p: 0 }, 200)[1]).toBe(1)
  expect(draw(x, { top_p: 1e-9 }, 200)[1]).toBe(1)
  expect(draw(x, { top_p: 0.499 }, 200)[1]).toBe(1)
  expect(draw(x, { top_p: 0.95 }, 2000).every((share) => share > 0)).toBe(true)
  expect(draw(x, { top_p: 0.899 }, 2000)[0]).toBe(0)
})

test('top_p among equals keeps the lowest ids', () => {
  const seen = draw(new Float32Array(8), { top_p: 0.5 }, 4000)
  expect(seen.slice(0, 4).every((share) => share > 0.2)).toBe(true)
  expect(seen.slice(4)).toEqual([0, 0, 0, 0])
})

test('top_p over a large vocabulary draws from the set that a full sort would give', () => {
  const x = Float32Array.from({ length: 49_152 }, (_, i) => 4 * Math.sin(i * 12.9898) ** 3)
  for (const [temperature, top_p] of [
    [0.3, 0.1],
    [0.7, 0.9],
    [2, 0.999],
  ] as const) {
    const max = Math.max(...x)
    const p = Array.from(x, (value) => Math.exp((value - max) / temperature))
    const order = p.map((_, i) => i).sort((a, b) => p[b]! - p[a]! || a - b)
    const total = p.reduce((a, b) => a + b)
    let end = 0
    for (let mass = 0; mass < top_p * total * (1 + 1e-9); end++) mass += p[order[end]!]!
    const nucleus = new Set(order.slice(0, end))
    const drawn = new Set<number>()
    for (let i = 0; i < 60; i++) drawn.add(sample(x, sampling({ temperature, top_p }), 0, i).token)
    expect([...drawn].filter((token) => !nucleus.has(token))).toEqual([])
    expect(drawn.size).toBeGreaterThan(20)
  }
})

test('a draw depends on seed, choice and position, and on nothing else', () => {
  const x = new Float32Array(1000)
  const tokens = (seed: number, choice: number) =>
    Array.from({ length: 20 }, (_, i) => sample(x, sampling({ seed }), choice, i).token)
  expect(tokens(5, 0)).toEqual(tokens(5, 0))
  expect(tokens(5, 0)).not.toEqual(tokens(6, 0))
  expect(tokens(5, 0)).not.toEqual(tokens(5, 1))
  const view = new Float32Array(3000).subarray(1000, 2000)
  expect(sample(view, sampling({ seed: 5 }), 0, 3).token).toBe(tokens(5, 0)[3])
})

test('impossible tokens are never drawn', () => {
  const x = Float32Array.of(0, Number.NEGATIVE_INFINITY, 0, Number.NaN)
  const seen = draw(x, { temperature: 2 }, 2000)
  expect(seen[1]).toBe(0)
  expect(seen[3]).toBe(0)
  expect(draw(x, { top_p: 0.9 }, 2000)[1]).toBe(0)
})

test('top_k keeps the k most probable, the lowest ids among equals, before top_p', () => {
  const x = logits(0.1, 0.4, 0.2, 0.2, 0.1)
  const two = draw(x, { top_k: 2 })
  expect(two.map((share) => share > 0)).toEqual([false, true, true, false, false])
  expect(Math.abs(two[1]! - 2 / 3)).toBeLessThan(0.018)
  expect(draw(x, { top_k: 1 }, 200)[1]).toBe(1)
  for (const top_k of [-1, 0, 5, 99])
    expect(draw(x, { top_k }, 2000).every((s) => s > 0)).toBe(true)
  // 0.4 of 0.6 is two thirds of what top_k left; of all it would be too little.
  expect(draw(x, { top_k: 2, top_p: 0.6 }, 500)[1]).toBe(1)
})

test('top_k over a large vocabulary draws from the set that a full sort would give', () => {
  const x = Float32Array.from({ length: 49_152 }, (_, i) => Math.sin(i * 12.9898) ** 3)
  const order = Array.from(x.keys()).sort((a, b) => x[b]! - x[a]! || a - b)
  const kept = new Set(order.slice(0, 50))
  const drawn = new Set<number>()
  for (let i = 0; i < 200; i++)
    drawn.add(sample(x, sampling({ top_k: 50, temperature: 2 }), 0, i).token)
  expect([...drawn].filter((token) => !kept.has(token))).toEqual([])
  expect(drawn.size).toBeGreaterThan(30)
})

// transformers 5.24's MinPLogitsWarper keeps the same sets.
test('min_p keeps what is at least that many times as probable as the best, after temperature', () => {
  const x = logits(0.5, 0.26, 0.14, 0.1)
  const possible = (change: Partial<Sampling>) => draw(x, change, 2000).map((share) => share > 0)
  expect(possible({ min_p: 0.5 })).toEqual([true, true, false, false])
  expect(possible({ min_p: 0.27 })).toEqual([true, true, true, false])
  expect(possible({ min_p: 1 })).toEqual([true, false, false, false])
  // (0.14 / 0.5)^(1/2) is 0.53.
  expect(possible({ min_p: 0.5, temperature: 2 })).toEqual([true, true, true, false])
})

const before = { prompt: [0, 1, 1], tokens: [2, 3, 3] }

test.each([
  // As transformers 5.24's RepetitionPenaltyLogitsProcessor(2) gives it; the others by hand from OpenAI's formula.
  ['repetition', { repetition_penalty: 2 }, [0.5, -4, 1.5, -8, 5]],
  ['frequency', { frequency_penalty: 0.5 }, [1, -2, 2.5, -5, 5]],
  ['presence', { presence_penalty: 0.5 }, [1, -2, 2.5, -4.5, 5]],
  ['a negative one', { frequency_penalty: -1 }, [1, -2, 4, -2, 5]],
  ['bias', { logit_bias: { 0: -100, 4: 2.5 } }, [-99, -2, 3, -4, 7.5]],
  [
    'all, repetition first',
    {
      repetition_penalty: 2,
      frequency_penalty: 0.5,
      presence_penalty: 0.25,
      logit_bias: { 2: 10 },
    },
    [0.5, -4, 10.75, -9.25, 5],
  ],
])('penalties change logits as defined: %s', (_, change, expected) => {
  const x = Float32Array.of(1, -2, 3, -4, 5)
  expect([...penalise(x, sampling(change), before)]).toEqual(expected)
  expect([...x]).toEqual([1, -2, 3, -4, 5])
})

test('without penalties logits are not even copied', () => {
  const x = Float32Array.of(1, 2)
  const neutral = {
    presence_penalty: 0,
    frequency_penalty: 0,
    repetition_penalty: 1,
    logit_bias: {},
  }
  expect(penalise(x, sampling(neutral), before)).toBe(x)
})

test('greedy takes the highest logit after penalties and bias', () => {
  const greedy = sampling({ temperature: 0, logit_bias: { 4: -100 } })
  const x = Float32Array.of(1, -2, 3, -4, 5)
  expect(sample(penalise(x, greedy, before), greedy, 0, 0).token).toBe(2)
})

test('only what the mask allows is drawn', () => {
  const x = logits(...Array.from({ length: 40 }, () => 1 / 40))
  const mask = Int32Array.of(1 << 31, 1 << 2)
  const drawn = draw(only(x, mask), {}, 500)
  expect(drawn.flatMap((share, id) => (share > 0 ? [id] : []))).toEqual([31, 34])
})
