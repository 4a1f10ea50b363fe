// AdamW with decoupled weight decay (arXiv 1711.05101) and clipping by the global norm, over flat vectors.

export interface Moments {
  readonly first: Float32Array
  readonly second: Float32Array
}

export interface AdamWOptions {
  /** The update's number, from 1. */
  readonly step: number
  readonly learningRate: number
  readonly weightDecay: number
  /** What the gradient is multiplied by; absent: 1. */
  readonly clip?: number
}

const BETA1 = 0.9
const BETA2 = 0.999
const EPSILON = 1e-8

/** Fresh moments for so many parameters. */
export const createMoments = (parameters: number): Moments => ({
  first: new Float32Array(parameters),
  second: new Float32Array(parameters),
})

/** One update of `parameters` and `moments` in place, as torch.optim.AdamW does it. */
export function adamW(
  parameters: Float32Array,
  gradient: Float32Array,
  { first, second }: Moments,
  { step, learningRate, weightDecay, clip = 1 }: AdamWOptions,
): void {
  const keep = 1 - learningRate * weightDecay
  const size = learningRate / (1 - BETA1 ** step)
  const correction = 1 / Math.sqrt(1 - BETA2 ** step)
  for (let i = 0; i < parameters.length; i++) {
    const g = gradient[i]! * clip
    const m = BETA1 * first[i]! + (1 - BETA1) * g
    const v = BETA2 * second[i]! + (1 - BETA2) * g * g
    first[i] = m
    second[i] = v
    parameters[i] = parameters[i]! * keep - (size * m) / (Math.sqrt(v) * correction + EPSILON)
  }
}

/** The gradient's norm, and the factor that brings it down to `maxNorm` where it is longer, as torch.nn.utils.clip_grad_norm_ does it. */
export function clipping(
  gradient: Float32Array,
  maxNorm: number,
): { readonly norm: number; readonly clip: number } {
  const norm = Math.sqrt(sumOfSquares(gradient))
  return { norm, clip: Math.min(1, maxNorm / (norm + 1e-6)) }
}

/** In four sums, so that one addition need not wait for the one before. */
function sumOfSquares(x: Float32Array): number {
  let [a, b, c, d] = [0, 0, 0, 0]
  const whole = x.length - (x.length % 4)
  for (let i = 0; i < whole; i += 4) {
    a += x[i]! * x[i]!
    b += x[i + 1]! * x[i + 1]!
    c += x[i + 2]! * x[i + 2]!
    d += x[i + 3]! * x[i + 3]!
  }
  for (let i = whole; i < x.length; i++) a += x[i]! * x[i]!
  return a + b + c + d
}
