// One optimizer step, and the loss of examples: the step graph's sessions with the adapter and its moments.
// Knows nothing of files, epochs or schedules.

import type { Example } from '../datasets/example.ts'
import type { LoraLayout } from '../models/adapters.ts'
import { createSession, type Session } from '../runtime/session.ts'
import type { TakeTurn } from '../runtime/thread.ts'
import { float32, type HostTensor } from '../tensor.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import { microBatches, supervisedTokens, totalWeight } from './micro-batch.ts'
import { adamW, clipByNorm, type Moments } from './optimizer.ts'
import { buildStep, type StepShape } from './step.ts'

/** What training changes; everything a resume needs besides the place in the data. */
export interface TrainState {
  /** Updates made so far. */
  step: number
  readonly adapter: Float32Array
  readonly moments: Moments
}

export interface TrainerOptions {
  readonly weights: MappedWeights
  readonly layout: LoraLayout
  readonly shape: StepShape
  readonly threads: number
  readonly weightDecay: number
  readonly maxGradNorm: number
  readonly turn: TakeTurn
}

/** Loss and accuracy over the supervised tokens of some examples, `tokens` of them. */
export interface Measure {
  readonly loss: number
  readonly accuracy: number
  readonly tokens: number
}

export interface Trainer extends AsyncDisposable {
  readonly state: TrainState
  /** Loss before the update, then the update. `grad_norm` is the norm before clipping. */
  step(examples: readonly Example[], learningRate: number): Promise<Measure & { gradNorm: number }>
  /** Loss and accuracy alone; undefined when `signal` was aborted before the last micro-batch. */
  evaluate(examples: readonly Example[], signal?: AbortSignal): Promise<Measure | undefined>
  /** The gradient of the mean loss, not clipped, and nothing updated. */
  gradient(examples: readonly Example[]): Promise<Measure & { gradient: Float32Array }>
}

/** Builds the graphs and opens their sessions; the one for evaluation when it is first needed. */
export async function createTrainer(state: TrainState, options: TrainerOptions): Promise<Trainer> {
  const { weights, layout, shape, threads, turn } = options
  const graphs = buildStep(weights, layout, shape)
  const open = (onnx: Uint8Array) => createSession(onnx, { threads })
  const trainSession = await open(graphs.train)
  let evaluateSession: Session | undefined

  const adapter = float32([layout.parameters], state.adapter)
  const sum = new Float32Array(layout.parameters)

  async function run(
    session: Session,
    examples: readonly Example[],
    each: (outputs: Record<string, HostTensor>) => void,
    signal?: AbortSignal,
  ): Promise<Measure | undefined> {
    const weight = totalWeight(examples)
    const tokens = supervisedTokens(examples)
    let loss = 0
    let correct = 0
    for (const { feeds } of microBatches(examples, shape, weight)) {
      if (feeds.index!.dims[0] === 0) continue
      if (signal?.aborted) return undefined
      using _turn = await turn()
      const outputs = await session.run({ ...feeds, adapter })
      loss += Number(outputs.loss!.data[0])
      correct += Number(outputs.correct!.data[0])
      each(outputs)
    }
    return { loss, accuracy: tokens === 0 ? 0 : correct / tokens, tokens }
  }

  const accumulate = async (examples: readonly Example[]): Promise<Measure> => {
    sum.fill(0)
    const measure = await run(trainSession, examples, ({ gradient }) => {
      const part = gradient!.data as Float32Array
      for (let i = 0; i < sum.length; i++) sum[i]! += part[i]!
    })
    return measure!
  }

  return {
    state,
    async step(examples, learningRate) {
      const measure = await accumulate(examples)
      const gradNorm = clipByNorm(sum, options.maxGradNorm)
      state.step++
      adamW(state.adapter, sum, state.moments, {
        step: state.step,
        learningRate,
        weightDecay: options.weightDecay,
      })
      return { ...measure, gradNorm }
    },
    async evaluate(examples, signal) {
      evaluateSession ??= await open(graphs.evaluate)
      return run(evaluateSession, examples, () => {}, signal)
    },
    async gradient(examples) {
      return { ...(await accumulate(examples)), gradient: sum.slice() }
    },
    async [Symbol.asyncDispose]() {
      await trainSession[Symbol.asyncDispose]()
      await evaluateSession?.[Symbol.asyncDispose]()
    },
  }
}
