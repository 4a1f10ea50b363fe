// Imports on the wire.

import { type Static, type TSchema, Type } from 'typebox'
import { IMPORT_KINDS } from '../../../engine/import/request.ts'
import type { Import } from '../../db/imports.ts'
import { Metadata, WorkError } from './fine-tuning.ts'

const closed = { additionalProperties: false }
const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])

export const CreateImportRequest = Type.Object(
  {
    files: Type.Array(Type.String({ minLength: 1 }), {
      minItems: 1,
      maxItems: 200,
      uniqueItems: true,
      description:
        'Ids of uploaded files of the purpose `user_data`: one .tar, one .gguf, or the files of a folder under their names.',
    }),
    base_model: Type.Optional(
      nullable(
        Type.String({
          minLength: 1,
          description: 'What an adapter is for, where adapter_config.json does not name it.',
        }),
      ),
    ),
    suffix: Type.Optional(nullable(Type.String({ minLength: 1, maxLength: 64 }))),
    metadata: Type.Optional(nullable(Metadata)),
  },
  closed,
)

export const ImportParams = Type.Object({ import_id: Type.String() })

export const ImportReply = Type.Object(
  {
    object: Type.Literal('fine_tuning.import'),
    id: Type.String(),
    created_at: Type.Integer(),
    finished_at: nullable(Type.Integer()),
    status: Type.Enum(['queued', 'running', 'succeeded', 'failed', 'cancelled']),
    files: Type.Array(
      Type.Object({
        source: Type.String({ description: 'The id of the uploaded file, or what was pulled.' }),
        filename: Type.String(),
        sha256: Type.String(),
        bytes: Type.Integer(),
      }),
    ),
    base_model: nullable(Type.String()),
    kind: nullable(Type.Enum(IMPORT_KINDS)),
    ignored: Type.Array(Type.String(), {
      description: 'What lay beside the model and was left out.',
    }),
    imported_model: nullable(Type.String()),
    user_provided_suffix: nullable(Type.String()),
    error: nullable(WorkError),
    metadata: nullable(Type.Record(Type.String(), Type.String())),
  },
  { $id: 'FineTuningImport' },
)

const seconds = (date: Date): number => Math.floor(date.getTime() / 1000)

export const presentImport = (one: Import): Static<typeof ImportReply> => ({
  object: 'fine_tuning.import',
  id: one.id,
  created_at: seconds(one.created_at),
  finished_at: one.finished_at && seconds(one.finished_at),
  status: one.status,
  files: one.received,
  base_model: one.base_model,
  kind: one.kind,
  ignored: one.ignored,
  imported_model: one.imported_model,
  user_provided_suffix: one.user_provided_suffix,
  error: one.error,
  metadata: one.metadata,
})
