// Which precision a job's frozen products get, tried on its own rows: int8 where it is faster and learns the same.

import type { Example } from '../datasets/example.ts'
import type { TakeTurn } from '../runtime/thread.ts'
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
export const LEAST_GAIN = 1.1
/** How often a side is timed each time that it has its turn. */
const RUNS = 2
/** How often the sides take turns at most: more than once only where their times are not this many times apart from what is asked. */
const ROUNDS = 3
const CLEAR = 1.35

/** A choice, and the trainer of it where it is open still: the session need not be made a second time. */
export interface Tried {
  readonly choice: Choice
  readonly trainer: Trainer | undefined
}

/** What the trial has measured. */
export interface Measured {
  /** Of int8's gradient to fp32's on the same examples. */
  readonly cosine: number
  /** Seconds of processor time of each short step. */
  readonly seconds: Readonly<Record<Precision, readonly number[]>>
}

export interface Trial {
  /** A trainer at the start, whose runs wait for this `turn`. */
  open(precision: Precision, turn: TakeTurn): Promise<Trainer>
  readonly turn: TakeTurn
  /** What both gradients are computed on; what fills one micro-batch of them is timed. */
  readonly examples: readonly Example[]
  readonly shape: { readonly rows: number; readonly row_length: number }
  /** Seconds of processor time that this process has had; absent: as the system counts them. */
  readonly clock?: () => number
}

/**
 * Computes the gradient of the same examples both ways, and times short steps of both in turns, one session after the
 * other, so that the memory of both is never needed at once. Changes nothing of what is trained.
 */
export async function choosePrecision(trial: Trial): Promise<Tried> {
  const { open, turn, examples, shape, clock = processorSeconds } = trial
  const timed = oneMicroBatch(examples, shape)
  const gradients: Partial<Record<Precision, Float32Array>> = {}
  const seconds: Record<Precision, number[]> = { fp32: [], int8: [] }
  const run = async (precision: Precision): Promise<Trainer> => {
    const meter = metered(turn, clock)
    const trainer = await open(precision, meter.turn)
    try {
      // The first run of a session is slow: it is not timed.
      const { gradient } = await trainer.gradient(gradients[precision] ? timed : examples)
      gradients[precision] ??= gradient
      for (let run = 0; run < RUNS; run++) {
        meter.reset()
        await trainer.gradient(timed)
        seconds[precision].push(meter.seconds)
      }
      return trainer
    } catch (error) {
      await trainer[Symbol.asyncDispose]()
      throw error
    }
  }
  for (let round = 1; ; round++) {
    const plain = await run('fp32')
    await plain[Symbol.asyncDispose]()
    const trainer = await run('int8')
    const measured = { cosine: cosine(gradients.int8!, gradients.fp32!), seconds }
    const choice = decidePrecision(measured)
    if (choice.precision === 'int8' && (isClear(measured) || round === ROUNDS))
      return { choice, trainer }
    await trainer[Symbol.asyncDispose]()
    if (isClear(measured) || round === ROUNDS) return { choice, trainer: undefined }
  }
}

/** Whether another round would change nothing. */
function isClear(measured: Measured): boolean {
  const apart = gainOf(measured) / LEAST_GAIN
  return !(measured.cosine >= LEAST_COSINE) || apart >= CLEAR || apart <= 1 / CLEAR
}

const gainOf = ({ seconds }: Measured): number =>
  Math.min(...seconds.fp32) / Math.min(...seconds.int8)

/**
 * The least that each side has taken is compared: other work takes time from a step and never gives it any. Processor
 * time rather than time that passes, so that a busy machine comes to the same.
 */
export function decidePrecision(measured: Measured): Choice {
  const { cosine } = measured
  const gain = gainOf(measured)
  const figures = `int8 is ${gain.toFixed(2)} times as fast as fp32 here, its gradient has a cosine of ${cosine.toFixed(3)} to fp32's`
  if (!(cosine >= LEAST_COSINE))
    return { precision: 'fp32', reason: `${figures}, and should have ${LEAST_COSINE}` }
  if (!(gain >= LEAST_GAIN))
    return { precision: 'fp32', reason: `${figures}: not worth it below ${LEAST_GAIN} times` }
  return { precision: 'int8', reason: figures }
}

/** The first examples, as many as fill a micro-batch. */
function oneMicroBatch(
  examples: readonly Example[],
  { rows, row_length }: Trial['shape'],
): Example[] {
  let room = rows * row_length
  const taken = examples.findIndex(({ tokens }) => {
    room -= tokens.length
    return room < 0
  })
  return examples.slice(0, taken < 0 ? examples.length : Math.max(1, taken))
}

function processorSeconds(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

/** Counts while a turn is had, not while one is waited for: then others compute. */
function metered(turn: TakeTurn, clock: () => number) {
  const meter = {
    seconds: 0,
    reset() {
      meter.seconds = 0
    },
    turn: (async (place) => {
      const had = await turn(place)
      const start = clock()
      return {
        [Symbol.dispose]() {
          meter.seconds += clock() - start
          had[Symbol.dispose]()
        },
      }
    }) satisfies TakeTurn as TakeTurn,
  }
  return meter
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
