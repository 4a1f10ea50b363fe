// What a training method supplies. Loop, optimizer, states, checkpoints and events are the same for all.

import type { EncodeOptions, RowEncoder } from '../../datasets/encode.ts'
import type { Example } from '../../datasets/example.ts'
import type { LoraLayout } from '../../models/adapters.ts'
import type { HostTensor } from '../../tensor.ts'
import type { MappedWeights, ModelConfig } from '../../weights/checkpoint.ts'
import type { Hyperparameters, Plan } from '../request.ts'
import type { StepGraphs, StepShape } from '../step.ts'
import type { Subject, SubjectSetup } from '../subject.ts'

export type Method = AdapterMethod | SubjectMethod

interface AnyMethod {
  /** `method.type` of a job. */
  readonly name: string
  /** It trains encoders; absent: models that go on with a text. */
  readonly encoders?: true
  /** How its rows become examples; `facts` are those of a plan, undefined while the training file is read. */
  encoder(options: EncodeOptions, facts?: Facts): MethodEncoder
  /** The peak learning rate at multiplier 1. */
  baseLearningRate(config: ModelConfig, hyperparameters: Hyperparameters): number
  /** What it takes besides, where a job does not say. */
  readonly defaults?: Partial<Hyperparameters>
  /** Hyperparameters of its own as numbers; adds a sentence for each that was `auto`. */
  settle?(hyperparameters: Hyperparameters, reasons: string[]): Pick<Plan, 'beta'>
  /** The columns of the result file after `step`, as StepMetrics names them. */
  readonly columns: readonly Column[]
}

/** One that trains an adapter over a frozen model. */
export interface AdapterMethod extends AnyMethod {
  /** The graphs of a step, and how examples go through them. */
  objective(setup: ObjectiveSetup): Objective
  /** With `adapter: none` every weight is what it trains; absent: it trains adapters alone. */
  whole?(setup: SubjectSetup): Subject
}

/** One that says for itself what it trains. */
export interface SubjectMethod extends AnyMethod {
  subject(setup: SubjectSetup): Subject
}

/** What the training file decides for the whole job; kept in the plan. */
export type Facts = NonNullable<Plan['facts']>

/** Encodes the rows of one file after another. */
export interface MethodEncoder extends RowEncoder {
  /** What the rows so far have decided; undefined where the method asks nothing of them. */
  facts?(): Facts
}

export interface ObjectiveSetup {
  readonly weights: MappedWeights
  readonly layout: LoraLayout
  readonly shape: StepShape
  /** Hyperparameters of the method's own, and its facts. */
  readonly plan?: Plan
  /** The vector that training started from, where it was no fresh one. */
  readonly initial?: (() => Promise<Float32Array>) | undefined
}

/** A method over one model and one shape. */
export interface Objective {
  /**
   * Inputs are what `measure` feeds and `parameters`, which the trainer adds. Outputs of the training graph:
   * `gradients`; of both graphs whatever `measure` reads.
   */
  readonly graphs: StepGraphs
  /** The trained vector as inputs, over its own memory; absent: `adapter` alone. */
  parameters?(flat: Float32Array): Feeds
  /** The outputs that make up its gradient, as places in a vector like it; absent: `gradient` alone. */
  gradients?(flat: Float32Array): Feeds
  /**
   * Sends examples through the graphs, micro-batch by micro-batch, and says how they did. In a training step
   * `run.train` is there and must be called so that the gradients of its runs add up to that of the mean loss.
   */
  measure(examples: readonly Example[], run: Run): Promise<Measure>
}

export type Feeds = Readonly<Record<string, HostTensor>>
export type Outputs = Readonly<Record<string, HostTensor>>

export interface Run {
  /** How many runs may be under way at once: as many as there are devices. */
  readonly width: number
  /** Runs the training graph and adds its gradient to that of the step; absent where nothing is learned. */
  readonly train?: (feeds: Feeds) => Promise<Outputs>
  readonly evaluate: (feeds: Feeds) => Promise<Outputs>
}

/** How some examples did. */
export interface Measure {
  readonly loss: number
  /** Of each of them, in their order: a mean over what is learned of it. */
  readonly losses: Float32Array
  /** Tokens they were learned from. */
  readonly tokens: number
  /** All else, by name: `mean_token_accuracy`. */
  readonly scores: Readonly<Record<string, number>>
}

export interface Column {
  /** In the file's first line. */
  readonly name: string
  /** In StepMetrics. */
  readonly metric: string
}
