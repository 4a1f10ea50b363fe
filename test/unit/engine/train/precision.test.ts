import { describe, expect, test } from 'vitest'
import type { Example } from '../../../../src/engine/datasets/example.ts'
import type { TakeTurn } from '../../../../src/engine/runtime/thread.ts'
import {
  choosePrecision,
  decidePrecision,
  type TrainPrecision,
} from '../../../../src/engine/train/precision.ts'
import type { Trainer } from '../../../../src/engine/train/trainer.ts'

describe('the decision', () => {
  const fast = [1, 1.02, 1.01, 1, 1.03, 1]
  const slow = fast.map((x) => 1.6 * x)
  const cosine = 0.99

  test.each<[string, number[], number[], number, TrainPrecision, RegExp]>([
    [
      'faster and alike',
      slow,
      fast,
      cosine,
      'int8',
      /^int8 is 1\.60 times .* of 0\.990 to fp32's$/,
    ],
    ['no faster', fast, fast, cosine, 'fp32', /1\.00 times .*not worth it below 1\.1 times$/],
    ['too little faster', fast.map((x) => 1.09 * x), fast, cosine, 'fp32', /not worth it/],
    ['fast, but not alike', slow, fast, 0.979, 'fp32', /of 0\.979 .*should have 0\.98$/],
    ['no gradient at all', slow, fast, Number.NaN, 'fp32', /should have 0\.98$/],
    ['nothing that a clock can see', [0, 0], [0, 0], cosine, 'fp32', /not worth it/],
    [
      'beside a burst of other work',
      slow,
      fast.map((x, i) => (i < 4 ? 5 * x : x)),
      cosine,
      'int8',
      /1\.6/,
    ],
    [
      'a burst on the other side',
      fast.map((x, i) => (i > 1 ? 9 * x : x)),
      fast,
      cosine,
      'fp32',
      /1\.00/,
    ],
    [
      'on a machine half as fast',
      slow.map((x) => 2 * x),
      fast.map((x) => 2 * x),
      cosine,
      'int8',
      /1\.6/,
    ],
  ])('%s', (_name, fp32, int8, cosine, precision, reason) => {
    const choice = decidePrecision({ lower: 'int8', cosine, seconds: { fp32, lower: int8 } })
    expect(choice).toEqual({ precision, reason: expect.stringMatching(reason) })
  })
})

describe('the trial', () => {
  const example = (line: number, tokens: number): Example => ({
    line,
    tokens: new Int32Array(tokens),
    weights: new Float32Array(tokens).fill(1),
  })
  const examples = [example(1, 40), example(2, 50), example(3, 30)]
  const shape = { rows: 1, row_length: 96 }

  /** Steps of planted length, on a machine where others compute whenever a turn is waited for. */
  function machine(took: (precision: TrainPrecision, nth: number) => number) {
    let now = 0
    let isOpen = false
    const ran: { precision: TrainPrecision; lines: number[] }[] = []
    const turn: TakeTurn = async () => {
      now += 100
      return { [Symbol.dispose]() {} }
    }
    const open = async (precision: TrainPrecision, taking: TakeTurn): Promise<Trainer> => {
      expect(isOpen, 'two sessions at once').toBe(false)
      isOpen = true
      now += 1000 // Opening it is not what is compared.
      return {
        gradient: async (given: readonly Example[]) => {
          using _turn = await taking()
          const nth = ran.filter((run) => run.precision === precision).length
          now += took(precision, nth)
          ran.push({ precision, lines: given.map(({ line }) => line) })
          const gradient = Float32Array.of(1, 2, precision === 'int8' ? 2.1 : 2)
          return { loss: 1, losses: new Float32Array(0), tokens: 1, scores: {}, gradient }
        },
        [Symbol.asyncDispose]: async () => {
          isOpen = false
        },
      } as unknown as Trainer
    }
    const trial = { lower: 'int8' as const, open, turn, examples, shape, clock: () => now }
    return { trial, ran, isOpen: () => isOpen }
  }

  test('takes the sides in turns, one at a time, and times what fills one micro-batch', async () => {
    const { trial, ran } = machine((precision) => (precision === 'int8' ? 1 : 1.2))
    const { choice, isClear, trainer } = await choosePrecision(trial)
    expect(isClear).toBe(false)
    expect(choice).toEqual({
      precision: 'int8',
      reason: expect.stringContaining('1.20 times'),
    })
    expect(trainer, 'the last that was tried is the one that is chosen').toBeDefined()
    const sides = ran.map(({ precision }) => precision).join(' ')
    const round = 'fp32 fp32 fp32 int8 int8 int8'
    expect(sides).toBe([round, round, round].join(' '))
    // All examples once on each side, for the gradients; then the two that fit into a row.
    const whole = ran.flatMap(({ lines }, i) => (lines.length === 3 ? [i] : []))
    expect(whole).toEqual([0, 3])
    expect(ran[1]!.lines).toEqual([1, 2])
  })

  test.each<[string, number, TrainPrecision]>([
    ['much faster', 2, 'int8'],
    ['much slower', 0.5, 'fp32'],
  ])('one round is enough where int8 is %s', async (_name, times, precision) => {
    const { trial, ran, isOpen } = machine((side) => (side === 'int8' ? 1 : times))
    const { choice, isClear, trainer } = await choosePrecision(trial)
    expect([choice.precision, ran.length, isClear]).toEqual([precision, 6, true])
    expect(isOpen(), 'a trainer that is not handed on is closed').toBe(trainer !== undefined)
    expect(trainer !== undefined).toBe(precision === 'int8')
  })

  test('float16 that a device cannot compute is said, and float32 it is', async () => {
    const { trial, isOpen } = machine(() => 1)
    const open = async (...[precision, taking]: Parameters<typeof trial.open>) => {
      if (precision === 'fp16') throw new Error('it has no such type')
      return trial.open(precision, taking)
    }
    expect(await choosePrecision({ ...trial, open, lower: 'fp16' })).toEqual({
      choice: { precision: 'fp32', reason: 'fp16 cannot be computed here: it has no such type' },
      isClear: false,
      trainer: undefined,
    })
    expect(isOpen()).toBe(false)
    const fails = choosePrecision({ ...trial, open: () => Promise.reject(new Error('disk full')) })
    await expect(fails).rejects.toThrow('disk full')
  })

  test('other work during one side of the trial changes no choice', async () => {
    for (const busy of ['fp32', 'int8'] as const) {
      // From the first to the second round of one side everything takes a third longer.
      const { trial } = machine((precision, nth) => {
        const quiet = precision === 'int8' ? 1 : 1.4
        return precision === busy && nth < 6 ? 1.3 * quiet : quiet
      })
      const { choice } = await choosePrecision(trial)
      expect([choice.precision, choice.reason]).toEqual([
        'int8',
        expect.stringContaining(busy === 'int8' ? '1.40 times' : '1.82 times'),
      ])
    }
  })
})
