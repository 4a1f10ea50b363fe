// Fine-tuning jobs, events and checkpoints on the wire: what is taken, and present() from record to reply.

import { type Static, type TSchema, Type } from 'typebox'
import { METHOD_NAMES, type MethodName } from '../../../engine/train/methods/index.ts'
import type { FineTuningCheckpoint } from '../../db/fine-tuning-checkpoints.ts'
import type { FineTuningJob, MetadataFilter } from '../../db/fine-tuning-jobs.ts'
import type { WorkEvent } from '../../db/work-events.ts'
import { hyperparametersOf, resolvedHyperparameters } from '../../jobs/hyperparameters.ts'
import { EarlyStopping, Extension } from './extension.ts'

const closed = { additionalProperties: false }
const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])
const auto = <T extends TSchema>(schema: T) => Type.Union([Type.Literal('auto'), schema])

const openaiHyperparameters = {
  n_epochs: Type.Optional(auto(Type.Integer({ minimum: 1, maximum: 50 }))),
  batch_size: Type.Optional(auto(Type.Integer({ minimum: 1, maximum: 256 }))),
  learning_rate_multiplier: Type.Optional(auto(Type.Number({ exclusiveMinimum: 0 }))),
}

/** What they are called differs from family to family; a name that the model has not fails the job. */
const TargetModules = Type.Union([
  Type.Literal('all-linear'),
  Type.Array(Type.String({ pattern: '^[A-Za-z0-9_]{1,64}$' }), {
    minItems: 1,
    maxItems: 64,
    uniqueItems: true,
  }),
])

/** Everything but the first three is ours, and absent from answers unless it was sent. */
const tuningHyperparameters = {
  ...openaiHyperparameters,
  learning_rate: Type.Optional(
    Type.Number({
      exclusiveMinimum: 0,
      maximum: 1,
      description: 'Overrides `learning_rate_multiplier` times the base rate.',
    }),
  ),
  max_sequence_length: Type.Optional(Type.Integer({ minimum: 8 })),
  truncation: Type.Optional(
    Type.Enum(['truncate', 'drop', 'error'], {
      description: 'What becomes of rows longer than `max_sequence_length`: `truncate` cuts them.',
    }),
  ),
  lora: Type.Optional(
    Type.Object(
      {
        rank: Type.Optional(auto(Type.Integer({ minimum: 1, maximum: 512 }))),
        alpha: Type.Optional(Type.Number({ exclusiveMinimum: 0 })),
        target_modules: Type.Optional(TargetModules),
        dropout: Type.Optional(Type.Number({ minimum: 0, exclusiveMaximum: 1 })),
        use_rslora: Type.Optional(
          Type.Boolean({ description: 'Scale by alpha / √rank instead of alpha / rank.' }),
        ),
        use_dora: Type.Optional(
          Type.Boolean({ description: 'Weight-decomposed adaptation, arXiv 2402.09353.' }),
        ),
      },
      closed,
    ),
  ),
  loraplus_lr_ratio: Type.Optional(
    Type.Number({
      exclusiveMinimum: 0,
      maximum: 1000,
      description: 'LoRA+: the learning rate of B as a multiple of that of A, arXiv 2402.12354.',
    }),
  ),
  data_parallel: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 64,
      description:
        'Devices that share the micro-batches of a step; the result is that of one. The job waits for a worker that has as many.',
    }),
  ),
  lr_schedule: Type.Optional(Type.Enum(['linear', 'cosine', 'constant'])),
  warmup_ratio: Type.Optional(Type.Number({ minimum: 0, maximum: 1 })),
  weight_decay: Type.Optional(Type.Number({ minimum: 0 })),
  max_grad_norm: Type.Optional(Type.Number({ exclusiveMinimum: 0 })),
  early_stopping: Type.Optional(EarlyStopping),
  precision: Type.Optional(
    Type.Enum(['auto', 'fp32', 'int8', 'fp16'], {
      description:
        'Of products with the frozen weights: int8 on a processor, fp16, with a scaled loss, on other devices. auto takes the lower one where it is faster and its gradient is nearly that of fp32.',
    }),
  ),
}

const wholeOrAdapterHyperparameters = Type.Object(
  {
    ...tuningHyperparameters,
    adapter: Type.Optional(
      Type.Enum(['lora', 'none'], { description: '`none` trains every weight.' }),
    ),
  },
  closed,
)

/** One line a method. */
const sentHyperparameters = {
  supervised: wholeOrAdapterHyperparameters,
  dpo: Type.Object(
    {
      ...tuningHyperparameters,
      beta: Type.Optional(auto(Type.Number({ exclusiveMinimum: 0, maximum: 2 }))),
    },
    closed,
  ),
  classification: wholeOrAdapterHyperparameters,
  embedding: wholeOrAdapterHyperparameters,
} satisfies Record<MethodName, TSchema>

/** A property for each method, under its name. */
const eachMethod = <T extends TSchema>(property: (name: MethodName) => T) =>
  Object.fromEntries(METHOD_NAMES.map((name) => [name, property(name)])) as Record<MethodName, T>

/** Why a job, or other work like it, has failed. */
export const WorkError = Type.Object({
  code: Type.String(),
  message: Type.String(),
  param: nullable(Type.String()),
})

/** What a client notes about a thing of its own. */
export const Metadata = Type.Record(
  Type.String({ maxLength: 64 }),
  Type.String({ maxLength: 512 }),
  {
    maxProperties: 16,
  },
)

const Integration = Type.Object({
  type: Type.Literal('wandb'),
  wandb: Type.Object({
    project: Type.String(),
    name: Type.Optional(nullable(Type.String())),
    entity: Type.Optional(nullable(Type.String())),
    tags: Type.Optional(Type.Array(Type.String())),
  }),
})

export const CreateFineTuningJobRequest = Type.Object(
  {
    model: Type.String({ minLength: 1 }),
    training_file: Type.String({ minLength: 1 }),
    validation_file: Type.Optional(nullable(Type.String())),
    hyperparameters: Type.Optional(
      Type.Object(openaiHyperparameters, { ...closed, deprecated: true }),
    ),
    suffix: Type.Optional(nullable(Type.String({ minLength: 1, maxLength: 64 }))),
    seed: Type.Optional(nullable(Type.Integer({ minimum: 0, maximum: 2147483647 }))),
    method: Type.Optional(
      Type.Object(
        {
          type: Type.Enum([...METHOD_NAMES, 'reinforcement']),
          reinforcement: Type.Optional(Type.Object({})),
          ...eachMethod((name) =>
            Type.Optional(
              Type.Object({ hyperparameters: Type.Optional(sentHyperparameters[name]) }, closed),
            ),
          ),
        },
        closed,
      ),
    ),
    integrations: Type.Optional(nullable(Type.Array(Integration))),
    metadata: Type.Optional(nullable(Metadata)),
    luthier: Type.Optional(nullable(Extension)),
  },
  closed,
)
export type CreateFineTuningJobRequest = Static<typeof CreateFineTuningJobRequest>

/** Besides its two fields it takes `metadata[key]=value` pairs, or `metadata=null`. */
export const ListJobsQuery = Type.Object(
  {
    after: Type.Optional(Type.String()),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 20 })),
    metadata: Type.Optional(Type.Union([Type.Literal('null'), Type.Null()])),
  },
  { patternProperties: { '^metadata\\[[^\\]]+\\]$': Type.String() } },
)

/** What the query says about metadata: pairs, null for none, undefined for nothing. */
export function readMetadataFilter(query: object): MetadataFilter {
  const pairs = Object.entries(query).flatMap(([name, value]) => {
    const key = /^metadata\[([^\]]+)\]$/.exec(name)?.[1]
    return key === undefined ? [] : [[key, String(value)] as const]
  })
  if (pairs.length > 0) return Object.fromEntries(pairs)
  return 'metadata' in query && query.metadata !== undefined ? null : undefined
}

/** The reply of a cursor list. */
export const listOf = (item: string) =>
  Type.Object({
    object: Type.Literal('list'),
    data: Type.Array(Type.Ref(item)),
    first_id: nullable(Type.String()),
    last_id: nullable(Type.String()),
    has_more: Type.Boolean(),
  })

export const JobParams = Type.Object({ fine_tuning_job_id: Type.String() })

const nullableInteger = nullable(Type.Integer())
const answeredHyperparameters = Type.Object(
  {
    n_epochs: auto(Type.Integer()),
    batch_size: auto(Type.Integer()),
    learning_rate_multiplier: auto(Type.Number()),
  },
  { additionalProperties: true },
)

export const FineTuningJobReply = Type.Object(
  {
    object: Type.Literal('fine_tuning.job'),
    id: Type.String(),
    model: Type.String(),
    created_at: Type.Integer(),
    finished_at: nullableInteger,
    fine_tuned_model: nullable(Type.String()),
    organization_id: Type.String(),
    result_files: Type.Array(Type.String()),
    status: Type.Enum([
      'validating_files',
      'queued',
      'running',
      'paused',
      'succeeded',
      'failed',
      'cancelled',
    ]),
    validation_file: nullable(Type.String()),
    training_file: Type.String(),
    hyperparameters: answeredHyperparameters,
    trained_tokens: nullableInteger,
    error: nullable(WorkError),
    user_provided_suffix: nullable(Type.String()),
    seed: Type.Integer(),
    estimated_finish: nullableInteger,
    integrations: Type.Array(Integration),
    method: Type.Object({
      type: Type.Enum(METHOD_NAMES),
      ...eachMethod(() => Type.Optional(Type.Object({ hyperparameters: answeredHyperparameters }))),
    }),
    metadata: nullable(Type.Record(Type.String(), Type.String())),
    luthier: Type.Optional(Extension),
  },
  { $id: 'FineTuningJob' },
)

export const FineTuningJobEventReply = Type.Object(
  {
    object: Type.Literal('fine_tuning.job.event'),
    id: Type.String(),
    created_at: Type.Integer(),
    level: Type.Enum(['info', 'warn', 'error']),
    type: Type.Enum(['message', 'metrics']),
    message: Type.String(),
    data: Type.Object({}, { additionalProperties: true }),
  },
  { $id: 'FineTuningJobEvent' },
)

const measured = Type.Optional(Type.Number())
export const FineTuningJobCheckpointReply = Type.Object(
  {
    object: Type.Literal('fine_tuning.job.checkpoint'),
    id: Type.String(),
    created_at: Type.Integer(),
    fine_tuned_model_checkpoint: Type.String(),
    step_number: Type.Integer(),
    metrics: Type.Object(
      {
        step: measured,
        train_loss: measured,
        train_mean_token_accuracy: measured,
        valid_loss: measured,
        valid_mean_token_accuracy: measured,
        full_valid_loss: measured,
        full_valid_mean_token_accuracy: measured,
      },
      { additionalProperties: Type.Number() },
    ),
    fine_tuning_job_id: Type.String(),
  },
  { $id: 'FineTuningJobCheckpoint' },
)

const seconds = (date: Date): number => Math.floor(date.getTime() / 1000)

/** A job as the API shows it; what `auto` became stands in both places. */
export function presentJob(job: FineTuningJob): Static<typeof FineTuningJobReply> {
  const hyperparameters = resolvedHyperparameters(hyperparametersOf(job.method), job.plan)
  return {
    object: 'fine_tuning.job',
    id: job.id,
    model: job.model,
    created_at: seconds(job.created_at),
    finished_at: job.finished_at && seconds(job.finished_at),
    fine_tuned_model: job.fine_tuned_model,
    organization_id: job.organization_id,
    result_files: job.result_files,
    status: job.status,
    validation_file: job.validation_file,
    training_file: job.training_file,
    hyperparameters,
    trained_tokens: job.trained_tokens,
    error: job.error,
    user_provided_suffix: job.user_provided_suffix,
    seed: job.seed,
    estimated_finish: job.estimated_finish && seconds(job.estimated_finish),
    integrations: [],
    method: { type: job.method.type, [job.method.type]: { hyperparameters } },
    metadata: job.metadata,
    ...(job.luthier && { luthier: job.luthier }),
  }
}

export const presentEvent = (event: WorkEvent): Static<typeof FineTuningJobEventReply> => ({
  object: 'fine_tuning.job.event',
  id: event.id,
  created_at: seconds(event.created_at),
  level: event.level,
  type: event.type,
  message: event.message,
  data: event.data,
})

export const presentCheckpoint = (
  checkpoint: FineTuningCheckpoint,
): Static<typeof FineTuningJobCheckpointReply> => ({
  object: 'fine_tuning.job.checkpoint',
  id: checkpoint.id,
  created_at: seconds(checkpoint.created_at),
  fine_tuned_model_checkpoint: checkpoint.fine_tuned_model_checkpoint,
  step_number: checkpoint.step_number,
  metrics: checkpoint.metrics,
  fine_tuning_job_id: checkpoint.job_id,
})
