// What the engine is asked about a job's files, of a job as of a request for one. Pure.

import type { Compute } from '../../engine/runtime/device.ts'
import type { Hyperparameters, InspectRequest } from '../../engine/train/request.ts'
import type { FineTuningJob } from '../db/fine-tuning-jobs.ts'
import { hyperparametersOf } from './hyperparameters.ts'

/** Where what a job names lies on this machine. */
export interface InspectedPaths {
  readonly model: string
  readonly training: { readonly path: string }
  readonly validation?: { readonly path: string } | undefined
  readonly reference?: { readonly path: string } | undefined
  /** Base models, among them perhaps an encoder that reads what is compared. */
  readonly models?: readonly { readonly id: string; readonly path: string }[]
}

export interface InspectionDefaults {
  /** Of frozen weights, where the job does not say. */
  readonly precision: NonNullable<Hyperparameters['precision']>
  readonly compute: Compute
  /** Folder for converted weights. */
  readonly cache: string
  /** Whether a speed that is not known yet is measured, or that of a large base alone; absent: it is not. */
  readonly measure?: boolean | 'large'
  /** Bytes that training may take; absent: what is free. */
  readonly memory?: number
}

/** Who asks a model while a job trains waits until a micro-batch is over. */
const MICRO_STEP_SECONDS = 0.3

export function inspectRequest(
  { method, initial, luthier }: Pick<FineTuningJob, 'method' | 'initial' | 'luthier'>,
  { model, training, validation, reference, models }: InspectedPaths,
  { precision, compute, cache, measure = false, memory }: InspectionDefaults,
): InspectRequest {
  const sent = hyperparametersOf(method)
  // What the adapter is stays; how much of it is dropped in training is the job's.
  const precise = { ...sent, precision: sent.precision ?? precision }
  const hyperparameters = initial
    ? { ...precise, lora: { ...initial.lora, dropout: sent.lora?.dropout ?? 0 } }
    : precise
  const { groups, strict, validation_split } = luthier?.data ?? {}
  return {
    type: 'inspect',
    model,
    training: { path: training.path },
    ...(validation && { validation: { path: validation.path } }),
    method: method.type,
    hyperparameters,
    compute,
    cache,
    measure,
    micro_step_seconds: MICRO_STEP_SECONDS,
    ...(memory !== undefined && { memory }),
    curation: {
      ...(reference && { reference: { path: reference.path } }),
      ...(models && { models: models.map(({ id, path }) => ({ id, path })) }),
      ...(groups && { groups }),
      ...(strict !== undefined && { strict }),
      ...(validation_split !== undefined && { validation_split }),
    },
  }
}
