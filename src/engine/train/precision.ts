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
export const LEAST_GAIN = 1.1
/** Timed runs of each; the first run of a session is not among them. */
const RUNS = 2

/**
 * Computes the gradient of the same examples both ways, one session after the other, so that the memory of both is
 * never needed at once. Changes nothing of what is trained.
 */
export async function choosePrecision(
  open: Readonly<Record<Precision, () => Promise<Trainer>>>,
  examples: readonly Example[],
): Promise<Choice> {
  const tried = async (precision: Precision) => {
    await using trainer = await open[precision]()
    const { gradient } = await trainer.gradient(examples)
    let fastest = Number.POSITIVE_INFINITY
    for (let run = 0; run < RUNS; run++) {
      const start = performance.now()
      await trainer.gradient(examples)
      fastest = Math.min(fastest, performance.now() - start)
    }
    return { gradient, fastest }
  }
  const fp32 = await tried('fp32')
  const int8 = await tried('int8')
  const likeness = cosine(int8.gradient, fp32.gradient)
  const gain = fp32.fastest / int8.fastest
  const figures = `int8 is ${gain.toFixed(2)} times as fast as fp32 here, its gradient has a cosine of ${likeness.toFixed(3)} to fp32's`
  if (!(likeness >= LEAST_COSINE))
    return { precision: 'fp32', reason: `${figures}, and should have ${LEAST_COSINE}` }
  if (gain < LEAST_GAIN)
    return { precision: 'fp32', reason: `${figures}: not worth it below ${LEAST_GAIN} times` }
  return { precision: 'int8', reason: figures }
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
