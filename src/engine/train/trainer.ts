// One optimizer step, and the loss of examples: a method's graphs in sessions, with the adapter and its moments.
// Knows nothing of files, epochs or schedules.

import type { Example } from '../datasets/example.ts'
import type { DeviceKind } from '../runtime/device.ts'
import type { TakeTurn } from '../runtime/thread.ts'
import { openLanes } from './lanes.ts'
import { afterGoodStep, afterOverflow, type LossScale, scaleFeeds, unscale } from './loss-scale.ts'
import type { Feeds, Measure, Objective, Outputs } from './methods/method.ts'
import { adamW, clipping, type Moments } from './optimizer.ts'

/** What training changes; everything a resume needs besides the place in the data. */
export interface TrainState {
  /** Updates made so far. */
  step: number
  readonly adapter: Float32Array
  readonly moments: Moments
  /** Where products are in float16. */
  loss_scale?: LossScale
}

export interface TrainerOptions {
  readonly objective: Objective
  /** Of each device. */
  readonly threads: number
  /** Of which kind each is; absent: cpu. */
  readonly device?: DeviceKind | undefined
  /** Devices that share the micro-batches of a step; absent: one. */
  readonly devices?: number | undefined
  readonly weightDecay: number
  readonly maxGradNorm: number
  /** Stretches of the vector with a rate of their own, end to end; absent: the schedule's for all. */
  readonly rates?: readonly RateGroup[]
  /** Of dropout; absent: 0. */
  readonly seed?: number
  readonly turn: TakeTurn
}

/** Elements `from` … `to` − 1 are learned at so many times the schedule's rate. */
export interface RateGroup {
  readonly from: number
  readonly to: number
  readonly ratio: number
  /** Whether weight decay is for them; absent: it is. */
  readonly decays?: boolean
}

export interface Trainer extends AsyncDisposable {
  readonly state: TrainState
  /**
   * Loss before the update, then the update. `grad_norm` is the norm before clipping; 0 where products in float16 have
   * overflowed under the scale of the loss and nothing was learned.
   */
  step(examples: readonly Example[], learningRate: number): Promise<Measure & { gradNorm: number }>
  /** How examples do, and nothing learned; undefined when `signal` was aborted before the last micro-batch. */
  evaluate(examples: readonly Example[], signal?: AbortSignal): Promise<Measure | undefined>
  /** The gradient of the mean loss, not clipped, and nothing updated but the scale of the loss where it was too large. */
  gradient(examples: readonly Example[]): Promise<Measure & { gradient: Float32Array }>
}

/** Opens the sessions of the method's graphs; the one for evaluation when it is first needed. */
export async function createTrainer(state: TrainState, options: TrainerOptions): Promise<Trainer> {
  const { objective, threads, device = 'cpu', devices = 1, turn } = options
  const parameters = state.adapter.length
  const sum = new Float32Array(parameters)
  const place = { objective, threads, device, devices, turn }
  const lanes = await openLanes({ ...place, parameters: state.adapter, sum })
  const { width } = lanes

  const rates = options.rates ?? [{ from: 0, to: parameters, ratio: 1 }]
  let microBatch = 0

  const train = (feeds: Feeds): Promise<Outputs> => {
    const dropped = objective.graphs.dropout?.feeds({
      seed: options.seed ?? 0,
      step: state.step + 1,
      microBatch,
    })
    microBatch++
    const { loss_scale } = state
    return lanes.train({ ...feeds, ...dropped, ...(loss_scale && scaleFeeds(loss_scale)) })
  }
  const evaluate =
    (signal?: AbortSignal) =>
    (feeds: Feeds): Promise<Outputs> =>
      lanes.evaluate(feeds, signal)
  const accumulate = async (examples: readonly Example[]): Promise<Measure & { fits: boolean }> => {
    microBatch = 0
    lanes.begin()
    const measure = await objective.measure(examples, { train, evaluate: evaluate(), width })
    if (microBatch === 0) sum.fill(0) // nothing to learn in any of them
    const { loss_scale } = state
    return { ...measure, fits: !loss_scale || unscale(sum, loss_scale) }
  }

  return {
    state,
    async step(examples, learningRate) {
      const { fits, ...measure } = await accumulate(examples)
      state.step++
      if (state.loss_scale) {
        const next = fits ? afterGoodStep(state.loss_scale) : afterOverflow(state.loss_scale)
        if (next) state.loss_scale = next
        // At the least scale it is the training that has diverged.
        if (!fits) return { ...measure, gradNorm: next ? 0 : Number.NaN }
      }
      const { norm, clip } = clipping(sum, options.maxGradNorm)
      const { adapter, moments } = state
      const step = state.step - (state.loss_scale?.skipped ?? 0)
      for (const { from, to, ratio, decays = true } of rates)
        adamW(
          adapter.subarray(from, to),
          sum.subarray(from, to),
          { first: moments.first.subarray(from, to), second: moments.second.subarray(from, to) },
          {
            step,
            learningRate: learningRate * ratio,
            weightDecay: decays ? options.weightDecay : 0,
            clip,
          },
        )
      return { ...measure, gradNorm: norm }
    },
    async evaluate(examples, signal) {
      try {
        lanes.begin()
        return await objective.measure(examples, { evaluate: evaluate(signal), width })
      } catch (error) {
        if (signal?.aborted && error === signal.reason) return undefined
        throw error
      }
    },
    async gradient(examples) {
      let measure = await accumulate(examples)
      while (!measure.fits && state.loss_scale) {
        const less = afterOverflow(state.loss_scale)
        if (!less) break
        state.loss_scale = less
        measure = await accumulate(examples)
      }
      return { ...measure, gradient: sum.slice() }
    },
    [Symbol.asyncDispose]: () => lanes[Symbol.asyncDispose](),
  }
}
