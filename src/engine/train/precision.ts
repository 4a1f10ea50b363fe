// Which precision a job's frozen products get, tried on its own rows: a lower one where it is faster and learns the same.

import type { Example } from '../datasets/example.ts'
import type { TakeTurn } from '../runtime/thread.ts'
import type { Trainer } from './trainer.ts'

/** What frozen weights are kept in, and forecasts know. */
export type Precision = 'fp32' | 'int8'
/** What their products are computed in: float16 on devices that want it, from weights in float32. */
export type TrainPrecision = Precision | 'fp16'
/** What is tried beside fp32. */
export type Lower = Exclude<TrainPrecision, 'fp32'>

export const keptPrecision = (precision: TrainPrecision): Precision =>
  precision === 'int8' ? 'int8' : 'fp32'

export interface Choice {
  readonly precision: TrainPrecision
  /** One sentence, with the figures. */
  readonly reason: string
}

/** Below it a lower precision costs learning: a speed trial cannot see outlier channels, the gradient does. */
const LEAST_COSINE = 0.98
/** What it must gain at least, for it is never quite the same. */
export const LEAST_GAIN = 1.1
/** How often a side is timed each time that it has its turn. */
const RUNS = 2
/** How often the sides take turns at most: more than once only where their times are not this many times apart from what is asked. */
const ROUNDS = 3
const CLEAR = 1.35

/** A choice, and the trainer of it where it is open still: the session need not be made a second time. */
export interface Tried {
  readonly choice: Choice
  /** Whether other rows, or another round, would hardly change it. */
  readonly isClear: boolean
  readonly trainer: Trainer | undefined
}

type Side = 'fp32' | 'lower'

/** What the trial has measured. */
export interface Measured {
  /** Which one is tried beside fp32. */
  readonly lower: Lower
  /** Of its gradient to fp32's on the same examples. */
  readonly cosine: number
  /** Seconds of each short step. */
  readonly seconds: Readonly<Record<Side, readonly number[]>>
}

export interface Trial {
  readonly lower: Lower
  /** A trainer at the start, whose runs wait for this `turn`. */
  open(precision: TrainPrecision, turn: TakeTurn): Promise<Trainer>
  readonly turn: TakeTurn
  /** What both gradients are computed on; what fills one micro-batch of them is timed. */
  readonly examples: readonly Example[]
  readonly shape: { readonly rows: number; readonly row_length: number }
  /** Seconds; absent: those of processor time that this process has had, so that a busy machine comes to the same. */
  readonly clock?: () => number
}

/**
 * Computes the gradient of the same examples both ways, and times short steps of both in turns, one session after the
 * other, so that the memory of both is never needed at once. Changes nothing of what is trained.
 */
export async function choosePrecision(trial: Trial): Promise<Tried> {
  const { lower, open, turn, examples, shape, clock = processorSeconds } = trial
  const timed = oneMicroBatch(examples, shape)
  const gradients: Partial<Record<Side, Float32Array>> = {}
  const seconds: Record<Side, number[]> = { fp32: [], lower: [] }
  const run = async (side: Side): Promise<Trainer> => {
    const meter = metered(turn, clock)
    const trainer = await open(side === 'fp32' ? side : lower, meter.turn)
    try {
      // The first run of a session is slow: it is not timed.
      const { gradient } = await trainer.gradient(gradients[side] ? timed : examples)
      gradients[side] ??= gradient
      for (let run = 0; run < RUNS; run++) {
        meter.reset()
        await trainer.gradient(timed)
        seconds[side].push(meter.seconds)
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
    const ran = await run('lower').catch((error: Error) => {
      // What a device lacks for float16 it says only when a graph comes to it.
      if (lower !== 'fp16') throw error
      return error
    })
    if (ran instanceof Error) {
      const reason = `fp16 cannot be computed here: ${ran.message}`
      return { choice: { precision: 'fp32', reason }, isClear: false, trainer: undefined }
    }
    const trainer = ran
    const measured = { lower, cosine: cosine(gradients.lower!, gradients.fp32!), seconds }
    const choice = decidePrecision(measured)
    const clear = isClear(measured)
    if (choice.precision === lower && (clear || round === ROUNDS))
      return { choice, isClear: clear, trainer }
    await trainer[Symbol.asyncDispose]()
    if (clear || round === ROUNDS) return { choice, isClear: clear, trainer: undefined }
  }
}

/** Whether another round would change nothing. */
function isClear(measured: Measured): boolean {
  const apart = gainOf(measured) / LEAST_GAIN
  return !(measured.cosine >= LEAST_COSINE) || apart >= CLEAR || apart <= 1 / CLEAR
}

const gainOf = ({ seconds }: Measured): number =>
  Math.min(...seconds.fp32) / Math.min(...seconds.lower)

/**
 * The least that each side has taken is compared: other work takes time from a step and never gives it any.
 */
export function decidePrecision(measured: Measured): Choice {
  const { lower, cosine } = measured
  const gain = gainOf(measured)
  const figures = `${lower} is ${gain.toFixed(2)} times as fast as fp32 here, its gradient has a cosine of ${cosine.toFixed(3)} to fp32's`
  if (!(cosine >= LEAST_COSINE))
    return { precision: 'fp32', reason: `${figures}, and should have ${LEAST_COSINE}` }
  if (!(gain >= LEAST_GAIN))
    return { precision: 'fp32', reason: `${figures}: not worth it below ${LEAST_GAIN} times` }
  return { precision: lower, reason: figures }
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
    turn: (async (wish) => {
      const had = await turn(wish)
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
