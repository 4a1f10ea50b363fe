// SQL of projects: what an organization is divided into.

import type { Db } from './pool.ts'

export interface ProjectRecord {
  readonly id: string
  readonly organization_id: string
  readonly name: string
  readonly created_at: Date
  readonly archived_at: Date | null
}

const COLUMNS = 'id, organization_id, name, created_at, archived_at'

/** Of an organization, the oldest first. */
export const listProjects = async (
  db: Db,
  organization_id: string,
  { archived }: { archived: boolean },
): Promise<ProjectRecord[]> => {
  const { rows } = await db.query<ProjectRecord>(
    `select ${COLUMNS} from projects
      where organization_id = $1 and ($2 or archived_at is null)
      order by created_at, id`,
    [organization_id, archived],
  )
  return rows
}

export const findProject = async (
  db: Db,
  organization_id: string,
  id: string,
): Promise<ProjectRecord | undefined> => {
  const { rows } = await db.query<ProjectRecord>(
    `select ${COLUMNS} from projects where organization_id = $1 and id = $2`,
    [organization_id, id],
  )
  return rows[0]
}

export const insertProject = async (
  db: Db,
  project: Pick<ProjectRecord, 'id' | 'organization_id' | 'name'>,
): Promise<ProjectRecord> => {
  const { rows } = await db.query<ProjectRecord>(
    `insert into projects (id, organization_id, name) values ($1, $2, $3) returning ${COLUMNS}`,
    [project.id, project.organization_id, project.name],
  )
  return rows[0]!
}

/** Archives it; the first time counts. Nothing where it is the organization's oldest, its default. */
export const archiveProject = async (
  db: Db,
  organization_id: string,
  id: string,
): Promise<ProjectRecord | undefined> => {
  const { rows } = await db.query<ProjectRecord>(
    `update projects set archived_at = coalesce(archived_at, now())
      where organization_id = $1 and id = $2
        and id <> (select id from projects where organization_id = $1
                    order by created_at, id limit 1)
      returning ${COLUMNS}`,
    [organization_id, id],
  )
  return rows[0]
}

/** Of all organizations, the archived ones too. */
export const listProjectIds = async (db: Db): Promise<string[]> => {
  const { rows } = await db.query<{ id: string }>('select id from projects order by id')
  return rows.map(({ id }) => id)
}
