// The wire shapes of files.

import { Type } from 'typebox'
import type { FileRecord } from '../../db/files.ts'
import { purposes } from '../../files/files.ts'

const unixTime = { format: 'unixtime' }

export const FileObject = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal('file'),
    bytes: Type.Integer(),
    created_at: Type.Integer(unixTime),
    expires_at: Type.Optional(Type.Integer(unixTime)),
    filename: Type.String(),
    purpose: Type.String(),
    status: Type.Union([
      Type.Literal('uploaded'),
      Type.Literal('processed'),
      Type.Literal('error'),
    ]),
    status_details: Type.Optional(Type.String({ description: 'Why the status is `error`.' })),
    parent: Type.Optional(
      Type.Object(
        { file_id: Type.String(), job_id: Type.String(), removed_rows: Type.Integer() },
        { description: 'The file that this one was derived from, and by what job.' },
      ),
    ),
  },
  { $id: 'File', description: 'A file that was uploaded, or made by a job.' },
)
export type FileObject = Type.Static<typeof FileObject>

export const FileList = Type.Object(
  {
    object: Type.Literal('list'),
    data: Type.Array(Type.Ref('File#')),
    first_id: Type.Union([Type.String(), Type.Null()]),
    last_id: Type.Union([Type.String(), Type.Null()]),
    has_more: Type.Boolean(),
  },
  { $id: 'FileList' },
)

export const DeletedFile = Type.Object(
  { id: Type.String(), object: Type.Literal('file'), deleted: Type.Literal(true) },
  { $id: 'DeletedFile' },
)

export const FileParams = Type.Object({ file_id: Type.String() })

export const FileListQuery = Type.Object({
  purpose: Type.Optional(Type.String({ description: 'Only files of this purpose.' })),
  after: Type.Optional(
    Type.String({ description: 'The id of the last object of the page before.' }),
  ),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000, default: 10_000 })),
  order: Type.Optional(
    Type.Union([Type.Literal('asc'), Type.Literal('desc')], { default: 'desc' }),
  ),
})

export const ExpiresAfter = Type.Object(
  {
    anchor: Type.Literal('created_at'),
    seconds: Type.Integer({ minimum: 3600, maximum: 2_592_000 }),
  },
  { additionalProperties: false },
)

/** The fields of the form besides the file; they come as strings. */
export const UploadFields = Type.Object(
  {
    purpose: Type.Enum([...purposes]),
    expires_after: Type.Optional(ExpiresAfter),
  },
  { additionalProperties: false },
)

/** The form as the description of the API shows it. */
export const UploadForm = Type.Object(
  {
    file: Type.Unsafe<unknown>({ type: 'string', contentMediaType: 'application/octet-stream' }),
    ...UploadFields.properties,
  },
  { $id: 'CreateFile', required: ['file', 'purpose'] },
)

/** From record to wire. */
export const presentFile = (file: FileRecord): FileObject => ({
  id: file.id,
  object: 'file',
  bytes: file.bytes,
  created_at: unixSeconds(file.created_at),
  ...(file.expires_at && { expires_at: unixSeconds(file.expires_at) }),
  filename: file.filename,
  purpose: file.purpose,
  status: file.status,
  ...(file.parent && { parent: file.parent }),
  ...(file.status_details !== null && { status_details: file.status_details }),
})

const unixSeconds = (time: Date): number => Math.floor(time.getTime() / 1000)
