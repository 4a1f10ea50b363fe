// The table `models`: tuned models. Base models are files, not rows.

import type { Db } from './pool.ts'

export interface TunedModel {
  id: string
  project_id: string
  job_id: string
  owned_by: string
  /** The model the job named. */
  parent: string
  /** The base model that the adapter fits. */
  root: string
  adapter_sha256: string
  adapter_config_sha256: string
  created_at: Date
}

/** It is owned by the project's organization. */
export async function insertModel(
  tx: Db,
  model: Omit<TunedModel, 'created_at' | 'owned_by'>,
): Promise<void> {
  await tx.query(
    `insert into models
       (id, project_id, job_id, owned_by, parent, root, adapter_sha256, adapter_config_sha256)
     select $1, p.id, $3, o.slug, $4, $5, $6, $7
       from projects p join organizations o on o.id = p.organization_id
      where p.id = $2`,
    [
      model.id,
      model.project_id,
      model.job_id,
      model.parent,
      model.root,
      model.adapter_sha256,
      model.adapter_config_sha256,
    ],
  )
}

export async function findModel(
  db: Db,
  project_id: string,
  id: string,
): Promise<TunedModel | undefined> {
  const { rows } = await db.query<TunedModel>(
    'select * from models where project_id = $1 and id = $2',
    [project_id, id],
  )
  return rows[0]
}

/** Oldest first. */
export async function listModels(db: Db, project_id: string): Promise<TunedModel[]> {
  const { rows } = await db.query<TunedModel>(
    'select * from models where project_id = $1 order by created_at, id',
    [project_id],
  )
  return rows
}

export async function deleteModel(
  tx: Db,
  project_id: string,
  id: string,
): Promise<TunedModel | undefined> {
  const { rows } = await tx.query<TunedModel>(
    'delete from models where project_id = $1 and id = $2 returning *',
    [project_id, id],
  )
  return rows[0]
}
