// SQL of organizations, projects and api_keys.

import type { Db } from './pool.ts'

/** What a key may do, the least first: look; upload, tune, infer and delete as well; administer. */
export const scopes = ['read', 'member', 'admin'] as const
export type Scope = (typeof scopes)[number]

/** A key that may be used, with the project and organization it opens. */
export interface KeyRecord {
  readonly key_id: string
  readonly hash: Buffer
  readonly scope: Scope
  readonly project_id: string
  /** An archived project refuses all requests. */
  readonly project_archived: boolean
  readonly organization_id: string
  readonly organization_slug: string
}

/** What may be told of a key. */
export interface ListedKey {
  readonly id: string
  readonly project_id: string
  readonly name: string
  readonly scope: Scope
  readonly created_at: Date
  readonly revoked_at: Date | null
}

export interface NewKey {
  readonly id: string
  readonly project_id: string
  readonly name: string
  readonly hash: Buffer
  readonly scope: Scope
}

/** The unrevoked key of this hash. */
export const findKeyByHash = async (db: Db, hash: Buffer): Promise<KeyRecord | undefined> => {
  const { rows } = await db.query<KeyRecord>(
    `select k.id as key_id, k.hash, k.scope, k.project_id,
            p.archived_at is not null as project_archived, o.id as organization_id, o.slug as organization_slug
       from api_keys k
       join projects p on p.id = k.project_id
       join organizations o on o.id = p.organization_id
      where k.hash = $1 and k.revoked_at is null`,
    [hash],
  )
  return rows[0]
}

/** Makes the key, or makes the one with this hash valid again. */
export const upsertKey = async (db: Db, key: NewKey): Promise<void> => {
  await db.query(
    `insert into api_keys (id, project_id, name, hash, scope)
     values ($1, $2, $3, $4, $5)
     on conflict (hash) do update
        set scope = excluded.scope, name = excluded.name, revoked_at = null`,
    [key.id, key.project_id, key.name, key.hash, key.scope],
  )
}

/** Ends a project's key; false when there is none that lives. */
export const revokeKey = async (db: Db, project_id: string, id: string): Promise<boolean> => {
  const { rowCount } = await db.query(
    `update api_keys set revoked_at = now()
      where project_id = $1 and id = $2 and revoked_at is null`,
    [project_id, id],
  )
  return rowCount === 1
}

/** Keys of an organization, or of one of its projects; the oldest first, those that were revoked too. */
export const listKeys = async (
  db: Db,
  organization_id: string,
  project_id?: string,
): Promise<ListedKey[]> => {
  const { rows } = await db.query<ListedKey>(
    `select k.id, k.project_id, k.name, k.scope, k.created_at, k.revoked_at
       from api_keys k
       join projects p on p.id = k.project_id
      where p.organization_id = $1 and ($2::text is null or k.project_id = $2)
      order by k.created_at, k.id`,
    [organization_id, project_id ?? null],
  )
  return rows
}

/** Ends the keys of this name but the one of this hash: the setting that named them has changed. */
export const revokeOtherKeysOfName = async (
  db: Db,
  key: Pick<NewKey, 'project_id' | 'name' | 'hash'>,
): Promise<void> => {
  await db.query(
    `update api_keys set revoked_at = now()
      where project_id = $1 and name = $2 and hash <> $3 and revoked_at is null`,
    [key.project_id, key.name, key.hash],
  )
}

/** The organization of this slug and its oldest project, made if they are missing. */
export const ensureOrganization = async (
  db: Db,
  wanted: { id: string; slug: string; project_id: string },
): Promise<{ organization_id: string; project_id: string }> => {
  const { rows: organizations } = await db.query<{ id: string }>(
    `insert into organizations (id, slug, name) values ($1, $2, $2)
     on conflict (slug) do update set slug = excluded.slug
     returning id`,
    [wanted.id, wanted.slug],
  )
  const organization_id = organizations[0]!.id
  // The upsert above holds the organization's row, so two processes do not both make the project.
  await db.query(
    `insert into projects (id, organization_id, name)
     select $1, $2, 'Default project'
      where not exists (select from projects where organization_id = $2)`,
    [wanted.project_id, organization_id],
  )
  const { rows: projects } = await db.query<{ id: string }>(
    `select id from projects where organization_id = $1 order by created_at, id limit 1`,
    [organization_id],
  )
  return { organization_id, project_id: projects[0]!.id }
}
