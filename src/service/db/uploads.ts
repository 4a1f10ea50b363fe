// SQL of uploads in parts. One past its expiry takes no more, whether or not it was swept.

import type { Db } from './pool.ts'

export type UploadStatus = 'pending' | 'completed' | 'cancelled' | 'expired'

export interface UploadRecord {
  readonly id: string
  readonly project_id: string
  readonly filename: string
  readonly purpose: string
  readonly bytes: number
  readonly mime_type: string
  readonly expires_after_seconds: number | null
  readonly status: UploadStatus
  readonly file_id: string | null
  readonly created_at: Date
  readonly expires_at: Date
}

export interface UploadPartRecord {
  readonly id: string
  readonly upload_id: string
  readonly project_id: string
  readonly sha256: string
  readonly bytes: number
  readonly created_at: Date
}

const COLUMNS = `id, project_id, filename, purpose, bytes, mime_type, expires_after_seconds, file_id,
  created_at, expires_at,
  case when status = 'pending' and expires_at <= now() then 'expired' else status end as status`

export const insertUpload = async (
  db: Db,
  upload: Omit<UploadRecord, 'status' | 'file_id' | 'created_at' | 'expires_at'> & {
    readonly life_seconds: number
  },
): Promise<UploadRecord> => {
  const { rows } = await db.query<UploadRecord>(
    `insert into uploads (id, project_id, filename, purpose, bytes, mime_type, expires_after_seconds, expires_at)
     values ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8))
     returning ${COLUMNS}`,
    [
      upload.id,
      upload.project_id,
      upload.filename,
      upload.purpose,
      upload.bytes,
      upload.mime_type,
      upload.expires_after_seconds,
      upload.life_seconds,
    ],
  )
  return rows[0]!
}

export const findUpload = async (
  db: Db,
  project_id: string,
  id: string,
): Promise<UploadRecord | undefined> => {
  const { rows } = await db.query<UploadRecord>(
    `select ${COLUMNS} from uploads where project_id = $1 and id = $2`,
    [project_id, id],
  )
  return rows[0]
}

/** The same, held until the transaction ends: it changes once, and no part comes in meanwhile. */
export const lockUpload = async (
  tx: Db,
  id: string,
  mode: 'share' | 'update',
): Promise<UploadRecord | undefined> => {
  const { rows } = await tx.query<UploadRecord>(
    `select ${COLUMNS} from uploads where id = $1 for ${mode}`,
    [id],
  )
  return rows[0]
}

export const insertUploadPart = async (
  tx: Db,
  part: Omit<UploadPartRecord, 'created_at'>,
): Promise<UploadPartRecord> => {
  const { rows } = await tx.query<UploadPartRecord>(
    `insert into upload_parts (id, upload_id, project_id, sha256, bytes)
     values ($1, $2, $3, $4, $5)
     returning *`,
    [part.id, part.upload_id, part.project_id, part.sha256, part.bytes],
  )
  return rows[0]!
}

export const listUploadParts = async (db: Db, upload_id: string): Promise<UploadPartRecord[]> => {
  const { rows } = await db.query<UploadPartRecord>(
    'select * from upload_parts where upload_id = $1',
    [upload_id],
  )
  return rows
}

/** Ends it and forgets its parts, whose objects are then to be released. */
export const endUpload = async (
  tx: Db,
  id: string,
  end: { status: 'completed'; file_id: string } | { status: 'cancelled'; file_id: null },
): Promise<{ upload: UploadRecord; parts: Pick<UploadPartRecord, 'project_id' | 'sha256'>[] }> => {
  const parts = await tx.query<Pick<UploadPartRecord, 'project_id' | 'sha256'>>(
    'delete from upload_parts where upload_id = $1 returning project_id, sha256',
    [id],
  )
  const { rows } = await tx.query<UploadRecord>(
    `update uploads set status = $2, file_id = $3 where id = $1 returning ${COLUMNS}`,
    [id, end.status, end.file_id],
  )
  return { upload: rows[0]!, parts: parts.rows }
}

/** Forgets some uploads that ended or expired so long ago; gives the objects of their parts. */
export const deleteOldUploads = async (
  tx: Db,
  { age_seconds, limit }: { age_seconds: number; limit: number },
): Promise<{ count: number; parts: Pick<UploadPartRecord, 'project_id' | 'sha256'>[] }> => {
  const { rows: old } = await tx.query<{ id: string }>(
    `select id from uploads where expires_at <= now() - make_interval(secs => $1)
      limit $2 for update skip locked`,
    [age_seconds, limit],
  )
  const ids = old.map(({ id }) => id)
  const parts = await tx.query<Pick<UploadPartRecord, 'project_id' | 'sha256'>>(
    'delete from upload_parts where upload_id = any($1) returning project_id, sha256',
    [ids],
  )
  await tx.query('delete from uploads where id = any($1)', [ids])
  return { count: ids.length, parts: parts.rows }
}
