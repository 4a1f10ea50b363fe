// What a job trains: a flat vector, where it starts, how its stretches learn, and the files that it is kept as.

import type { Example } from '../datasets/example.ts'
import type { Checkpoint, MappedWeights } from '../weights/checkpoint.ts'
import type { TunedEncoder } from './encoder-probe.ts'
import type { Objective } from './methods/method.ts'
import type { Tuned } from './probe.ts'
import type { Plan } from './request.ts'
import type { RateGroup } from './trainer.ts'

export interface Subject {
  /** Elements of the vector. */
  readonly parameters: number
  /** The vector before the first step: fresh, or as the files of an earlier job have it. */
  start(): Promise<Float32Array>
  readonly objective: Objective
  /** The vector as a model beside its base; absent: an encoder, which has no texts to go on with. */
  readonly tuned?: Tuned
  /** The vector as an encoder; absent: a decoder. */
  readonly encoder?: TunedEncoder
  /** Stretches with a rate of their own, end to end. */
  readonly rates: readonly RateGroup[]
  /** The vector after so many steps as a model's two files. */
  files(flat: Float32Array, step: number): Promise<TunedFiles> | TunedFiles
}

/** `adapter_model.safetensors` and `adapter_config.json` of a PEFT folder; with all weights trained, those of a model. */
export interface TunedFiles {
  readonly adapter: Uint8Array
  readonly adapter_config: string
}

export interface SubjectSetup {
  readonly checkpoint: Checkpoint
  readonly weights: MappedWeights
  readonly plan: Plan
  readonly seed: number
  /** The files of an earlier job that this one goes on from. */
  readonly initial: string | undefined
  /** All that the job will ever read, in training and validation. */
  readonly examples: readonly Example[]
}
