// Which precision a job's frozen products get, tried on its own rows: int8 where it is faster and learns the same.

import type { Example } from '../datasets/example.ts'
import type { Trainer } from './trainer.ts'

export type Precision = 'fp32' | 'int8'

export interface Choice {
  readonly precision: Precision
  /** One sentence, with the figures. */
  readonly reason: string
}

/** Below it int8 costs learning: a speed trial cannot see outlier channels, the gradient does. */
const LEAST_COSINE = 0.98
/** What int8 must gain at least, for it is never quite the same. */
const LEAST_GAIN = 1.1
/** Timed pairs of runs; the first run of each session is not among them. */
const PAIRS = 3

/**
 * Computes the gradient of the same examples both ways, in turns, and takes the median of the pairs' ratios: what else
 * the machine does meanwhile slows both. Changes nothing of what is trained. Where there is no memory for both at once,
 * `together` is false, and the fastest of one is compared with the fastest of the other.
 */
export async function choosePrecision(
  open: Readonly<Record<Precision, () => Promise<Trainer>>>,
  examples: readonly Example[],
  together = true,
): Promise<Choice> {
  const { fp32, int8, gain } = await (together ? inTurns : oneAfterTheOther)(open, examples)
  const likeness = cosine(int8, fp32)
  const figures = `int8 is ${gain.toFixed(2)} times as fast as fp32 here, its gradient has a cosine of ${likeness.toFixed(3)} to fp32's`
  if (!(likeness >= LEAST_COSINE))
    return { precision: 'fp32', reason: `${figures}, and should have ${LEAST_COSINE}` }
  if (gain < LEAST_GAIN)
    return { precision: 'fp32', reason: `${figures}: not worth it below ${LEAST_GAIN} times` }
  return { precision: 'int8', reason: figures }
}

interface Trial {
  /** The gradient either way. */
  readonly fp32: Float32Array
  readonly int8: Float32Array
  /** How many times as fast int8 was. */
  readonly gain: number
}

type Open = Parameters<typeof choosePrecision>[0]

async function inTurns(open: Open, examples: readonly Example[]): Promise<Trial> {
  await using plain = await open.fp32()
  await using quick = await open.int8()
  const { gradient: fp32 } = await plain.gradient(examples)
  const { gradient: int8 } = await quick.gradient(examples)
  const ratios: number[] = []
  for (let pair = 0; pair < PAIRS; pair++)
    ratios.push((await timed(plain, examples)) / (await timed(quick, examples)))
  return { fp32, int8, gain: ratios.sort((a, b) => a - b)[PAIRS >> 1]! }
}

async function oneAfterTheOther(open: Open, examples: readonly Example[]): Promise<Trial> {
  const tried = async (precision: Precision) => {
    await using trainer = await open[precision]()
    const { gradient } = await trainer.gradient(examples)
    let fastest = Number.POSITIVE_INFINITY
    for (let run = 0; run < PAIRS; run++)
      fastest = Math.min(fastest, await timed(trainer, examples))
    return { gradient, fastest }
  }
  const fp32 = await tried('fp32')
  const int8 = await tried('int8')
  return { fp32: fp32.gradient, int8: int8.gradient, gain: fp32.fastest / int8.fastest }
}

async function timed(trainer: Trainer, examples: readonly Example[]): Promise<number> {
  const start = performance.now()
  await trainer.gradient(examples)
  return performance.now() - start
}

/** NaN where one of them is zero everywhere. */
function cosine(a: Float32Array, b: Float32Array): number {
  let ab = 0
  let aa = 0
  let bb = 0
  for (let i = 0; i < a.length; i++) {
    ab += a[i]! * b[i]!
    aa += a[i]! * a[i]!
    bb += b[i]! * b[i]!
  }
  return ab / Math.sqrt(aa * bb)
}
