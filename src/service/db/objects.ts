// SQL of objects: which bytes a project owns.

import { type Db, isForeignKeyViolation } from './pool.ts'

export interface ObjectRecord {
  readonly project_id: string
  readonly sha256: string
  readonly bytes: number
}

type ObjectKeyParts = Pick<ObjectRecord, 'project_id' | 'sha256'>

/** Writes down that the project owns these bytes, or that it was given them again. */
export const upsertObject = async (db: Db, object: ObjectRecord): Promise<void> => {
  await db.query(
    `insert into objects (project_id, sha256, bytes) values ($1, $2, $3)
     on conflict (project_id, sha256) do update set touched_at = now()`,
    [object.project_id, object.sha256, object.bytes],
  )
}

/** Those of them that the project has a row for. */
export const knownObjects = async (
  db: Db,
  project_id: string,
  sha256s: readonly string[],
): Promise<string[]> => {
  const { rows } = await db.query<{ sha256: string }>(
    'select sha256 from objects where project_id = $1 and sha256 = any ($2)',
    [project_id, sha256s],
  )
  return rows.map((row) => row.sha256)
}

// The advisory lock of backups; any number, as long as nothing else here uses it.
const BACKUP = 7_032_002

/** From here on, until this session ends, no object is forgotten: a backup is going to read them all. */
export const holdObjects = async (client: Db): Promise<void> => {
  await client.query('select pg_advisory_lock($1)', [BACKUP])
}

/**
 * Forgets the object, unless a row of any table still refers to it (the foreign keys know them all) or a
 * backup runs: then it stays, and the sweeper finds it later.
 */
export const deleteObjectIfUnused = async (tx: Db, object: ObjectKeyParts): Promise<boolean> => {
  const { rows } = await tx.query<{ may: boolean }>(
    'select pg_try_advisory_xact_lock_shared($1) as may',
    [BACKUP],
  )
  if (!rows[0]!.may) return false
  await tx.query('savepoint unused')
  try {
    const { rowCount } = await tx.query(
      'delete from objects where project_id = $1 and sha256 = $2',
      [object.project_id, object.sha256],
    )
    return rowCount === 1
  } catch (error) {
    if (!isForeignKeyViolation(error)) throw error
    await tx.query('rollback to savepoint unused')
    return false
  }
}

/** Holds the object's name until the transaction ends: nobody else keeps or releases it meanwhile. */
export const lockObject = async (tx: Db, object: ObjectKeyParts): Promise<void> => {
  await tx.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [nameOf(object)])
}

/** The same, held by the session until `unlockObject`. */
export const lockObjectForSession = async (client: Db, object: ObjectKeyParts): Promise<void> => {
  await client.query('select pg_advisory_lock(hashtextextended($1, 0))', [nameOf(object)])
}

export const unlockObject = async (client: Db, object: ObjectKeyParts): Promise<void> => {
  await client.query('select pg_advisory_unlock(hashtextextended($1, 0))', [nameOf(object)])
}

const nameOf = (object: ObjectKeyParts) => `object ${object.project_id}/${object.sha256}`

/** Until the transaction ends nobody else confirms what the project's objects take; taken after their own locks. */
export const lockDisk = async (tx: Db, project_id: string): Promise<void> => {
  await tx.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`disk ${project_id}`])
}

/** What the project's objects take. */
export const bytesOfProject = async (db: Db, project_id: string): Promise<number> => {
  const { rows } = await db.query<{ bytes: number }>(
    'select coalesce(sum(bytes), 0)::bigint as bytes from objects where project_id = $1',
    [project_id],
  )
  return rows[0]!.bytes
}

/**
 * Some objects that no row of any table refers to and that were not given again for so long, in the order of
 * their keys behind `after`.
 */
export const listUnusedObjects = async (
  db: Db,
  query: { idle_seconds: number; after: ObjectKeyParts | undefined; limit: number },
): Promise<ObjectKeyParts[]> => {
  const unused = (await referencesToObjects(db))
    .map(
      ({ name, project, sha256 }) =>
        `and not exists (select from ${name} r where r.${project} = o.project_id and r.${sha256} = o.sha256)`,
    )
    .join('\n        ')
  const { rows } = await db.query<ObjectKeyParts>(
    `select project_id, sha256 from objects o
      where touched_at <= now() - make_interval(secs => $1)
        and ($2::text is null or (project_id, sha256) > ($2, $3))
        ${unused}
      order by project_id, sha256
      limit $4`,
    [query.idle_seconds, query.after?.project_id ?? null, query.after?.sha256 ?? null, query.limit],
  )
  return rows
}

/** Which columns of which tables refer to objects: the catalog knows, so that no new table is forgotten. */
const referencesToObjects = async (
  db: Db,
): Promise<{ name: string; project: string; sha256: string }[]> => {
  const { rows } = await db.query(
    `select c.conrelid::regclass::text as name,
            max(quote_ident(a.attname)) filter (where f.attname = 'project_id') as project,
            max(quote_ident(a.attname)) filter (where f.attname = 'sha256') as sha256
       from pg_constraint c
       cross join lateral unnest(c.conkey, c.confkey) as k (own, theirs)
       join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.own
       join pg_attribute f on f.attrelid = c.confrelid and f.attnum = k.theirs
      where c.contype = 'f' and c.confrelid = 'objects'::regclass
      group by c.oid, c.conrelid`,
  )
  return rows
}
