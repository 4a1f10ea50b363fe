// The wire shapes of uploads in parts.

import { Type } from 'typebox'
import type { FileRecord } from '../../db/files.ts'
import { purposes } from '../../files/files.ts'
import { UPLOAD_LIMIT, type UploadPartRecord, type UploadRecord } from '../../files/uploads.ts'
import { ExpiresAfter, presentFile } from './files.ts'

const unixTime = { format: 'unixtime' }

export const UploadObject = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal('upload'),
    bytes: Type.Integer({ description: 'What its parts must have in all.' }),
    created_at: Type.Integer(unixTime),
    expires_at: Type.Integer(unixTime),
    filename: Type.String(),
    purpose: Type.String(),
    status: Type.Enum(['pending', 'completed', 'cancelled', 'expired']),
    file: Type.Optional(Type.Ref('File#')),
  },
  { $id: 'Upload', description: 'A file that comes in parts.' },
)

export const UploadPart = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal('upload.part'),
    created_at: Type.Integer(unixTime),
    upload_id: Type.String(),
  },
  { $id: 'UploadPart' },
)

export const UploadParams = Type.Object({ upload_id: Type.String() })

export const CreateUpload = Type.Object(
  {
    filename: Type.String({ minLength: 1, maxLength: 255 }),
    purpose: Type.Enum([...purposes]),
    bytes: Type.Integer({ minimum: 1, maximum: UPLOAD_LIMIT }),
    mime_type: Type.String({ minLength: 1, maxLength: 255 }),
    expires_after: Type.Optional(ExpiresAfter),
  },
  { additionalProperties: false, $id: 'CreateUpload' },
)

/** The form as the description of the API shows it. */
export const PartForm = Type.Object(
  { data: Type.Unsafe<unknown>({ type: 'string', contentMediaType: 'application/octet-stream' }) },
  { $id: 'AddUploadPart' },
)

export const CompleteUpload = Type.Object(
  {
    part_ids: Type.Array(Type.String(), { minItems: 1, maxItems: 10_000 }),
    md5: Type.Optional(Type.String({ description: 'Of all bytes, in hex or base64.' })),
  },
  { additionalProperties: false, $id: 'CompleteUpload' },
)

/** From record to wire. */
export const presentUpload = (upload: UploadRecord, file?: FileRecord) => ({
  id: upload.id,
  object: 'upload' as const,
  bytes: upload.bytes,
  created_at: unixSeconds(upload.created_at),
  expires_at: unixSeconds(upload.expires_at),
  filename: upload.filename,
  purpose: upload.purpose,
  status: upload.status,
  ...(file && { file: presentFile(file) }),
})

export const presentPart = (part: UploadPartRecord) => ({
  id: part.id,
  object: 'upload.part' as const,
  created_at: unixSeconds(part.created_at),
  upload_id: part.upload_id,
})

const unixSeconds = (time: Date): number => Math.floor(time.getTime() / 1000)
