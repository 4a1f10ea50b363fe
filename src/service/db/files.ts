// SQL of files. A file past its expiry is no file, whether or not it was swept.

import type { Db } from './pool.ts'

export type FileStatus = 'uploaded' | 'processed' | 'error'

export interface FileRecord {
  readonly id: string
  readonly project_id: string
  readonly sha256: string
  readonly bytes: number
  readonly filename: string
  readonly purpose: string
  readonly status: FileStatus
  readonly status_details: string | null
  /** The file that this one was made of; null: it was uploaded, or made by a job. */
  readonly parent: FileParent | null
  readonly created_at: Date
  readonly expires_at: Date | null
}

/** Where a derived file comes from. */
export interface FileParent {
  readonly file_id: string
  /** What the job learned decided which rows were left out. */
  readonly job_id: string
  readonly removed_rows: number
}

export type NewFile = Omit<FileRecord, 'created_at' | 'expires_at' | 'parent'> & {
  readonly parent?: FileParent | undefined
  readonly expires_after_seconds: number | null
}

/** One page of a list, and one row more where there is more. */
export interface FileQuery {
  readonly purpose: string | undefined
  readonly after: string | undefined
  readonly limit: number
  readonly order: 'asc' | 'desc'
}

const ALIVE = '(expires_at is null or expires_at > now())'

/** Where a page may begin: at files, and where files stood until lately. */
const CURSORS = `(select created_at, id from files where project_id = $1 and id = $2
                  union all
                  select created_at, id from ended_cursors where list_id = $1 and id = $2)`

/** What a deletion returns, noted as the cursors that it ends. */
const ENDING = (deletion: string) =>
  `with gone as (${deletion} returning *),
        ended as (insert into ended_cursors (list_id, id, created_at)
                  select project_id, id, created_at from gone)
   select * from gone`

export const insertFile = async (db: Db, file: NewFile): Promise<FileRecord> => {
  const { rows } = await db.query<FileRecord>(
    `insert into files (id, project_id, sha256, bytes, filename, purpose, status, status_details, expires_at, parent)
     values ($1, $2, $3, $4, $5, $6, $7, $8, now() + make_interval(secs => $9), $10)
     returning *`,
    [
      file.id,
      file.project_id,
      file.sha256,
      file.bytes,
      file.filename,
      file.purpose,
      file.status,
      file.status_details,
      file.expires_after_seconds,
      file.parent && JSON.stringify(file.parent),
    ],
  )
  return rows[0]!
}

export const findFile = async (
  db: Db,
  project_id: string,
  id: string,
): Promise<FileRecord | undefined> => {
  const { rows } = await db.query<FileRecord>(
    `select * from files where project_id = $1 and id = $2 and ${ALIVE}`,
    [project_id, id],
  )
  return rows[0]
}

/** `limit + 1` rows behind `after`; undefined when `after` names no file that this project has or had lately. */
export const listFiles = async (
  db: Db,
  project_id: string,
  query: FileQuery,
): Promise<FileRecord[] | undefined> => {
  const cursor = query.after === undefined ? null : query.after
  if (cursor !== null) {
    const { rowCount } = await db.query(`select from ${CURSORS} cursor`, [project_id, cursor])
    if (rowCount === 0) return undefined
  }
  const [is, order] = query.order === 'asc' ? ['>', 'asc'] : ['<', 'desc']
  const { rows } = await db.query<FileRecord>(
    `select * from files
      where project_id = $1 and ${ALIVE}
        and ($3::text is null or purpose = $3)
        and ($2::text is null
             or (created_at, id) ${is} (select created_at, id from ${CURSORS} cursor limit 1))
      order by created_at ${order}, id ${order}
      limit $4`,
    [project_id, cursor, query.purpose ?? null, query.limit + 1],
  )
  return rows
}

/** The file as it was, or undefined when there was none. */
export const deleteFile = async (
  db: Db,
  project_id: string,
  id: string,
): Promise<FileRecord | undefined> => {
  const { rows } = await db.query<FileRecord>(
    ENDING(`delete from files where project_id = $1 and id = $2 and ${ALIVE}`),
    [project_id, id],
  )
  return rows[0]
}

/** Takes away some of the files past their expiry, of all projects. */
export const deleteExpiredFiles = async (
  db: Db,
  limit: number,
): Promise<Pick<FileRecord, 'id' | 'project_id' | 'sha256'>[]> => {
  const { rows } = await db.query(
    ENDING(
      `delete from files
        where id in (select id from files where expires_at <= now() limit $1 for update skip locked)`,
    ),
    [limit],
  )
  return rows
}
