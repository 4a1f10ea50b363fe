// Merges on the wire.

import { type Static, type TSchema, Type } from 'typebox'
import type { Merge } from '../../db/merges.ts'
import { Metadata, WorkError } from './fine-tuning.ts'

const closed = { additionalProperties: false }
const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])

export const CreateMergeRequest = Type.Object(
  {
    config: Type.Union([Type.String(), Type.Record(Type.String(), Type.Unknown())], {
      description:
        'What is merged and how: the text of a mergekit YAML, or the same as JSON. A body of the type application/yaml is this field alone.',
    }),
    suffix: Type.Optional(nullable(Type.String({ minLength: 1, maxLength: 64 }))),
    metadata: Type.Optional(nullable(Metadata)),
  },
  closed,
)

export const MergeParams = Type.Object({ merge_id: Type.String() })

export const MergeReply = Type.Object(
  {
    object: Type.Literal('fine_tuning.merge'),
    id: Type.String(),
    created_at: Type.Integer(),
    finished_at: nullable(Type.Integer()),
    status: Type.Enum(['queued', 'running', 'succeeded', 'failed', 'cancelled']),
    config: Type.Object({}, { additionalProperties: true }),
    models: Type.Array(Type.String(), { description: 'What it is made of.' }),
    merged_model: nullable(Type.String()),
    user_provided_suffix: nullable(Type.String()),
    tensors: Type.Integer(),
    tensors_done: Type.Integer(),
    bytes: Type.Integer({ description: 'Of the weights that come out.' }),
    chosen: nullable(
      Type.Object(
        {
          candidate: Type.Integer(),
          budget: Type.Integer(),
          weights: Type.Array(Type.Number(), {
            description:
              'Of the adapters, or of the models that have one, as the text orders them.',
          }),
          density: Type.Optional(Type.Number()),
          loss: Type.Optional(Type.Number({ description: 'On the validation file.' })),
          score: Type.Optional(Type.Number({ description: 'Of the eval.' })),
        },
        { description: 'What its search has found best so far; null where nothing is searched.' },
      ),
    ),
    error: nullable(WorkError),
    metadata: nullable(Type.Record(Type.String(), Type.String())),
  },
  { $id: 'FineTuningMerge' },
)

const seconds = (date: Date): number => Math.floor(date.getTime() / 1000)

export const presentMerge = (merge: Merge): Static<typeof MergeReply> => ({
  object: 'fine_tuning.merge',
  id: merge.id,
  created_at: seconds(merge.created_at),
  finished_at: merge.finished_at && seconds(merge.finished_at),
  status: merge.status,
  config: merge.config,
  models: merge.parents,
  merged_model: merge.merged_model,
  user_provided_suffix: merge.user_provided_suffix,
  tensors: merge.tensors,
  tensors_done: merge.tensors_done,
  bytes: merge.bytes,
  chosen: merge.chosen,
  error: merge.error,
  metadata: merge.metadata,
})
