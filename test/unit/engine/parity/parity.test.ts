import { expect, test } from 'vitest'
import {
  type Evidence,
  hashOfTemplate,
  judge,
  klOf,
  LOGITS_TOLERANCE,
  MOST_KL,
  relativeDifference,
  textDifference,
} from '../../../../src/engine/parity/parity.ts'

const template_sha256 = hashOfTemplate('{{ messages }}')
const logits = Float32Array.from([1, 2, 4, 0, -1, 3])
const evidence: Evidence = {
  file: 'training',
  template_sha256,
  precision: 'int8',
  rows: [
    {
      line: 7,
      prompt: { text: 'a b' },
      prompt_length: 3,
      tokens: Int32Array.from([1, 10, 11, 12, 13]),
      from: 2,
      logits,
    },
  ],
}
const texts = (prompt: number[], hash = template_sha256) =>
  textDifference(evidence, { template_sha256: hash, prompts: [prompt] })
const verdict = (answer: Float32Array, served?: Float32Array) =>
  judge(
    evidence,
    {
      precision: served ? 'int4' : 'fp32',
      answers: [{ prompt: [1, 10, 11], logits: answer, ...(served && { served }) }],
    },
    3,
  )

test('prompts must have the tokens that training had before the answer, no more and no fewer', () => {
  expect(texts([1, 10, 11])).toBe(undefined)
  expect(texts([1, 1, 10, 11])).toMatch(
    /line 7 of the training file .* token 1 is 1, where training has 10/,
  )
  expect(texts([1, 10])).toMatch(/it has 2 tokens, where training has 3/)
  expect(texts([1, 10, 11, 12])).toMatch(/it has 4 tokens, where training has 3/)
})

test('the template must be the same one', () => {
  expect(texts([1, 10, 11], hashOfTemplate('{{ other }}'))).toMatch(/another chat template/)
  expect(texts([1, 10, 11], hashOfTemplate(undefined))).toMatch(/\(none\)/)
})

test('logits may differ by the tolerance, and by no more', () => {
  const moved = (by: number) => logits.map((x, i) => (i === 2 ? x + by * 4 : x))
  expect(verdict(moved(0.9 * LOGITS_TOLERANCE))).toMatchObject({
    certificate: {
      lines: [7],
      tokens: 2,
      precision: { training: 'int8', serving: 'fp32' },
      mean_kl: null,
    },
  })
  expect(verdict(moved(1.1 * LOGITS_TOLERANCE))).toMatchObject({
    difference: expect.stringMatching(/differ .* at line 7/),
  })
  expect(verdict(moved(Number.NaN))).toHaveProperty('difference')
  expect(relativeDifference(logits.subarray(1), logits)).toBe(Number.POSITIVE_INFINITY)
})

test('what is served in less may be so many nats away, in the mean', () => {
  const away = (by: number) => logits.map((x, i) => (i === 0 ? x + by : x))
  const kl = (by: number) => klOf(logits.subarray(0, 3), away(by).subarray(0, 3)) / 2
  // By hand: Σ p · ln(p / q) of the first place.
  const p = [1, 2, 4].map(Math.exp)
  const q = [1.5, 2, 4].map(Math.exp)
  const [sumP, sumQ] = [p, q].map((all) => all.reduce((a, b) => a + b, 0)) as [number, number]
  const expected = p.reduce(
    (sum, x, i) => sum + (x / sumP) * Math.log(x / sumP / (q[i]! / sumQ)),
    0,
  )
  expect(2 * kl(0.5)).toBeCloseTo(expected, 6)
  expect(kl(0.5)).toBeLessThan(MOST_KL)
  expect(verdict(logits, away(0.5))).toMatchObject({
    certificate: { mean_kl: expect.closeTo(kl(0.5), 6), precision: { serving: 'int4' } },
  })
  expect(kl(3)).toBeGreaterThan(MOST_KL)
  expect(verdict(logits, away(3))).toMatchObject({
    difference: expect.stringMatching(/Served in int4/),
  })
})
