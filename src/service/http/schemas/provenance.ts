// Weights and provenance on the wire.

import { type Static, Type } from 'typebox'
import { EXPORT_DTYPES, EXPORT_FORMATS } from '../../../engine/export/request.ts'
import type { Ancestor, KeptAnswer } from '../../db/provenance.ts'
import { listOf } from './fine-tuning.ts'

export const WeightsQuery = Type.Object(
  {
    format: Type.Optional(
      Type.Enum(EXPORT_FORMATS, {
        description: 'peft for an adapter, hf for a merged folder; `hf` where it is left out.',
      }),
    ),
    dtype: Type.Optional(
      Type.Enum(EXPORT_DTYPES, {
        description: 'f32 where it is left out. hf: f32, f16, bf16. onnx: f32, f16. gguf: all.',
      }),
    ),
    shard_bytes: Type.Optional(
      Type.Integer({ minimum: 1_000_000, description: 'What one file of an hf folder may take.' }),
    ),
  },
  { additionalProperties: false },
)

const learned = {
  file: Type.Optional(Type.String({ description: 'Id of a training file.' })),
  row_sha256: Type.Optional(
    Type.String({
      pattern: '^[0-9a-fA-F]{64}$',
      description: 'SHA-256 of a row as it stands in its file, without the line end.',
    }),
  ),
}

export const LineageQuery = Type.Object(learned, { additionalProperties: false })

export const AnswersQuery = Type.Object(
  {
    ...learned,
    after: Type.Optional(
      Type.String({ description: 'The id of the last answer of the page before.' }),
    ),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 20 })),
  },
  { additionalProperties: false },
)

export const KeptAnswerReply = Type.Object(
  {
    object: Type.Enum(['chat.completion', 'response']),
    id: Type.String(),
    model: Type.String(),
    created_at: Type.Integer(),
  },
  { $id: 'KeptAnswer', description: 'An answer that was kept, and which model gave it.' },
)

export const AnswerList = listOf('KeptAnswer#')

export const presentAnswer = (answer: KeptAnswer): Static<typeof KeptAnswerReply> => ({
  object: answer.object,
  id: answer.id,
  model: answer.model,
  created_at: Math.floor(answer.created_at.getTime() / 1000),
})

export const LineageEntry = Type.Object(
  {
    object: Type.Literal('model.lineage'),
    model: Type.String(),
    parents: Type.Array(Type.String()),
    job_id: Type.Union([Type.String(), Type.Null()]),
    training_file: Type.Union([Type.String(), Type.Null()]),
    training_sha256: Type.Union([Type.String(), Type.Null()]),
    validation_sha256: Type.Union([Type.String(), Type.Null()]),
  },
  { $id: 'ModelLineage', description: 'A model that was made here, and of what.' },
)

export const LineageList = Type.Object({
  object: Type.Literal('list'),
  data: Type.Array(Type.Ref('ModelLineage#')),
})

const Signature = Type.Object({
  algorithm: Type.Literal('ed25519'),
  key_id: Type.String(),
  public_key: Type.String(),
  value: Type.String(),
})

export const StatementReply = Type.Object(
  { statement: Type.Record(Type.String(), Type.Unknown()), signature: Signature },
  { $id: 'ModelStatement', description: 'What is said of a model, signed.' },
)

export const KeyReply = Type.Object({
  object: Type.Literal('provenance.key'),
  algorithm: Type.Literal('ed25519'),
  key_id: Type.String(),
  public_key: Type.String({ description: 'The raw 32 bytes in base64.' }),
})

export const presentAncestor = (ancestor: Ancestor): Static<typeof LineageEntry> => ({
  object: 'model.lineage',
  ...ancestor,
})
