// Batches on the wire.

import { type Static, type TSchema, Type } from 'typebox'
import { BATCH_ENDPOINTS, COMPLETION_WINDOWS, type CreateBatch } from '../../batches/batches.ts'
import type { Batch } from '../../db/batches.ts'
import { ExpiresAfter } from './files.ts'
import { Metadata } from './fine-tuning.ts'

const closed = { additionalProperties: false }
const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])
const time = () => Type.Optional(Type.Integer({ format: 'unixtime' }))

const WINDOWS = Object.keys(COMPLETION_WINDOWS) as (keyof typeof COMPLETION_WINDOWS)[]

export const CreateBatchRequest = Type.Object(
  {
    input_file_id: Type.String({
      description:
        'A file of the purpose `batch`: a line {"custom_id", "method": "POST", "url", "body"} a request.',
    }),
    endpoint: Type.Enum([...BATCH_ENDPOINTS], { description: 'Of all requests.' }),
    completion_window: Type.Enum(WINDOWS),
    metadata: Type.Optional(nullable(Metadata)),
    output_expires_after: Type.Optional(ExpiresAfter),
  },
  closed,
)

export const toCreateBatch = ({
  output_expires_after,
  ...body
}: Static<typeof CreateBatchRequest>): CreateBatch => ({
  ...body,
  ...(output_expires_after && { output_expires_after_seconds: output_expires_after.seconds }),
})

export const BatchParams = Type.Object({ batch_id: Type.String() })

export const BatchReply = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal('batch'),
    endpoint: Type.String(),
    model: Type.Optional(Type.String({ description: 'Where all requests name the same one.' })),
    errors: Type.Optional(
      Type.Object({
        object: Type.Literal('list'),
        data: Type.Array(
          Type.Object({
            code: Type.String(),
            message: Type.String(),
            line: nullable(Type.Integer()),
            param: nullable(Type.String()),
          }),
        ),
      }),
    ),
    input_file_id: Type.String(),
    completion_window: Type.String(),
    status: Type.Enum([
      'validating',
      'failed',
      'in_progress',
      'finalizing',
      'completed',
      'expired',
      'cancelling',
      'cancelled',
    ]),
    output_file_id: Type.Optional(Type.String({ description: 'Of requests that were answered.' })),
    error_file_id: Type.Optional(Type.String({ description: 'Of requests that met an error.' })),
    created_at: Type.Integer({ format: 'unixtime' }),
    in_progress_at: time(),
    expires_at: time(),
    finalizing_at: time(),
    completed_at: time(),
    failed_at: time(),
    expired_at: time(),
    cancelling_at: time(),
    cancelled_at: time(),
    request_counts: Type.Object({
      total: Type.Integer(),
      completed: Type.Integer(),
      failed: Type.Integer(),
    }),
    usage: Type.Object({
      input_tokens: Type.Integer(),
      input_tokens_details: Type.Object({ cached_tokens: Type.Integer() }),
      output_tokens: Type.Integer(),
      output_tokens_details: Type.Object({ reasoning_tokens: Type.Integer() }),
      total_tokens: Type.Integer(),
    }),
    metadata: nullable(Type.Record(Type.String(), Type.String())),
  },
  { $id: 'Batch' },
)

const seconds = (date: Date): number => Math.floor(date.getTime() / 1000)

export const presentBatch = (batch: Batch): Static<typeof BatchReply> => ({
  id: batch.id,
  object: 'batch',
  endpoint: batch.endpoint,
  ...(batch.model !== null && { model: batch.model }),
  ...(batch.errors && { errors: { object: 'list', data: batch.errors } }),
  input_file_id: batch.input_file_id,
  completion_window: batch.completion_window,
  status: batch.status,
  ...(batch.output_file_id !== null && { output_file_id: batch.output_file_id }),
  ...(batch.error_file_id !== null && { error_file_id: batch.error_file_id }),
  created_at: seconds(batch.created_at),
  expires_at: seconds(batch.expires_at),
  ...(batch.in_progress_at && { in_progress_at: seconds(batch.in_progress_at) }),
  ...(batch.finalizing_at && { finalizing_at: seconds(batch.finalizing_at) }),
  ...(batch.cancelling_at && { cancelling_at: seconds(batch.cancelling_at) }),
  ...(batch.finished_at && { [`${batch.status}_at`]: seconds(batch.finished_at) }),
  request_counts: { total: batch.total, completed: batch.completed, failed: batch.failed },
  usage: {
    input_tokens: batch.input_tokens,
    input_tokens_details: { cached_tokens: batch.cached_tokens },
    output_tokens: batch.output_tokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: batch.input_tokens + batch.output_tokens,
  },
  metadata: batch.metadata,
})
