// The tables `models` and `model_files`: tuned, merged and imported models. Base models are files on disk, not rows.

import type { Certificate } from '../../engine/parity/parity.ts'
import type { Db } from './pool.ts'

export interface TunedModel {
  id: string
  project_id: string
  /** The job that tuned it, the merge that made it, or the import that brought it. */
  job_id: string | null
  merge_id: string | null
  import_id: string | null
  owned_by: string
  /** The model the job named, or the first that the merge did. */
  parent: string
  /** The base model that the adapter fits; itself, where it has files of its own. */
  root: string
  /** Null where it has files of its own. */
  adapter_sha256: string | null
  adapter_config_sha256: string | null
  /** That it is served as it was trained; null where nobody has looked. */
  parity: Certificate | null
  created_at: Date
}

/** One file of a model that has files of its own. */
export interface ModelFile {
  path: string
  sha256: string
  bytes: number
}

/** It is owned by the project's organization. */
export async function insertModel(
  tx: Db,
  model: Pick<TunedModel, 'id' | 'project_id' | 'parent' | 'root'> &
    Partial<Omit<TunedModel, 'created_at' | 'owned_by'>>,
): Promise<void> {
  await tx.query(
    `insert into models
       (id, project_id, job_id, owned_by, parent, root, adapter_sha256, adapter_config_sha256, merge_id,
        import_id, parity)
     select $1, p.id, $3, o.slug, $4, $5, $6, $7, $8, $9, $10
       from projects p join organizations o on o.id = p.organization_id
      where p.id = $2`,
    [
      model.id,
      model.project_id,
      model.job_id ?? null,
      model.parent,
      model.root,
      model.adapter_sha256 ?? null,
      model.adapter_config_sha256 ?? null,
      model.merge_id ?? null,
      model.import_id ?? null,
      model.parity ? JSON.stringify(model.parity) : null,
    ],
  )
}

/** Its model must be there already, and their objects. */
export async function insertModelFiles(
  tx: Db,
  { id, project_id }: Pick<TunedModel, 'id' | 'project_id'>,
  files: readonly ModelFile[],
): Promise<void> {
  await tx.query(
    `insert into model_files (model_id, project_id, path, sha256, bytes)
     select $1, $2, path, sha256, bytes
       from json_to_recordset($3) as f (path text, sha256 text, bytes bigint)`,
    [id, project_id, JSON.stringify(files)],
  )
}

/** In the order of their names; none where the model is an adapter. */
export async function listModelFiles(
  db: Db,
  { id, project_id }: Pick<TunedModel, 'id' | 'project_id'>,
): Promise<ModelFile[]> {
  const { rows } = await db.query<ModelFile>(
    `select path, sha256, bytes from model_files
      where project_id = $1 and model_id = $2 order by path collate "C"`,
    [project_id, id],
  )
  return rows
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

/** A model, checkpoint, or job, merge or import under way that needs this model's own files, if there is one. */
export async function findUser(
  db: Db,
  project_id: string,
  id: string,
): Promise<string | undefined> {
  const { rows } = await db.query<{ id: string }>(
    `select id from models where project_id = $1 and root = $2 and id <> $2
     union all
     select c.fine_tuned_model_checkpoint
       from fine_tuning_checkpoints c join fine_tuning_jobs j on j.id = c.job_id
      where c.project_id = $1 and j.root = $2 and c.adapter_sha256 is not null
     union all
     select id from fine_tuning_jobs
      where project_id = $1 and root = $2 and finished_at is null
     union all
     select id from merges where project_id = $1 and $2 = any (parents) and finished_at is null
     union all
     select id from imports where project_id = $1 and base_model = $2 and finished_at is null
     limit 1`,
    [project_id, id],
  )
  return rows[0]?.id
}

export async function deleteModel(
  tx: Db,
  project_id: string,
  id: string,
): Promise<(TunedModel & { files: ModelFile[] }) | undefined> {
  const { rows: files } = await tx.query<ModelFile>(
    'delete from model_files where project_id = $1 and model_id = $2 returning path, sha256, bytes',
    [project_id, id],
  )
  const { rows } = await tx.query<TunedModel>(
    'delete from models where project_id = $1 and id = $2 returning *',
    [project_id, id],
  )
  return rows[0] && { ...rows[0], files }
}
