// The tables `signing_keys` and `model_parents`, and what jobs say of where models come from.

import type { Db } from './pool.ts'

/** The private key of the database; `made` becomes it where there is none. */
export async function settleSigningKey(db: Db, made: string): Promise<string> {
  await db.query('insert into signing_keys (private_key) values ($1) on conflict do nothing', [
    made,
  ])
  const { rows } = await db.query<{ private_key: string }>('select private_key from signing_keys')
  return rows[0]!.private_key
}

/** Says that a model was made of others. */
export async function insertParents(
  tx: Db,
  { project_id, model, parents }: { project_id: string; model: string; parents: readonly string[] },
): Promise<void> {
  await tx.query(
    `insert into model_parents (project_id, model, parent)
     select $1, $2, parent from unnest($3::text[]) parent on conflict do nothing`,
    [project_id, model, parents],
  )
}

/** A model that was made here, with the job that made it, if one did. */
export interface Ancestor {
  model: string
  parents: string[]
  job_id: string | null
  training_file: string | null
  training_sha256: string | null
  validation_sha256: string | null
}

// Every name that a model of the project has or had: tuned models, checkpoints, and what is made of several.
const MADE = `
  made as (
    select j.project_id, j.model_name as model, j.model as parent, j.id as job_id
      from fine_tuning_jobs j where j.project_id = $1
    union all
    select c.project_id, c.fine_tuned_model_checkpoint, j.model, j.id
      from fine_tuning_checkpoints c join fine_tuning_jobs j on j.id = c.job_id
     where c.project_id = $1 and c.fine_tuned_model_checkpoint <> j.model_name
    union all
    select project_id, model, parent, null from model_parents where project_id = $1
  )`

const DESCRIBED = `
  select m.model, array_agg(distinct m.parent) as parents, max(m.job_id) as job_id,
         max(j.training_file) as training_file, max(j.training_sha256) as training_sha256,
         max(j.validation_sha256) as validation_sha256
    from made m left join fine_tuning_jobs j on j.id = m.job_id`

/** The model and all that it was made of, as far as it was made here; the model first, then by name. */
export async function ancestorsOf(db: Db, project_id: string, model: string): Promise<Ancestor[]> {
  const { rows } = await db.query<Ancestor>(
    `with recursive ${MADE}, line as (
       select $2::text as model
       union
       select m.parent from made m join line l on m.model = l.model
     )
     ${DESCRIBED} where m.model in (select model from line)
     group by m.model order by m.model <> $2, m.model`,
    [project_id, model],
  )
  return rows
}

/** All models that were made, directly or through others, by jobs that read one of these contents. */
export async function descendantsOfFiles(
  db: Db,
  project_id: string,
  sha256s: readonly string[],
): Promise<Ancestor[]> {
  const { rows } = await db.query<Ancestor>(
    `with recursive ${MADE}, line as (
       select m.model from made m join fine_tuning_jobs j on j.id = m.job_id
        where j.training_sha256 = any($2)
       union
       select m.model from made m join line l on m.parent = l.model
     )
     ${DESCRIBED} where m.model in (select model from line)
     group by m.model order by m.model`,
    [project_id, sha256s],
  )
  return rows
}

/** The contents that the project's jobs were trained on. */
export async function trainingContents(db: Db, project_id: string): Promise<string[]> {
  const { rows } = await db.query<{ sha256: string }>(
    'select distinct training_sha256 as sha256 from fine_tuning_jobs where project_id = $1',
    [project_id],
  )
  return rows.map(({ sha256 }) => sha256)
}

/** The contents of a file that is there, or that a job was once trained on. */
export async function contentsOfFile(db: Db, project_id: string, file: string): Promise<string[]> {
  const { rows } = await db.query<{ sha256: string }>(
    `select sha256 from files where project_id = $1 and id = $2
     union
     select training_sha256 from fine_tuning_jobs where project_id = $1 and training_file = $2`,
    [project_id, file],
  )
  return rows.map(({ sha256 }) => sha256)
}

/** A run of an eval on a model, as far as it has counted. */
export interface EvalOfModel {
  run: string
  eval: string
  name: string
  /** Of the items that it was run on. */
  items_sha256: string
  total: number
  passed: number
  failed: number
  errored: number
}

/** The runs that have ended by themselves, the oldest first. */
export async function evalsOfModel(
  db: Db,
  project_id: string,
  model: string,
): Promise<EvalOfModel[]> {
  const { rows } = await db.query<EvalOfModel>(
    `select r.id as run, r.eval_id as eval, e.name, r.items_sha256, r.total, r.passed, r.failed, r.errored
       from eval_runs r join evals e on e.id = r.eval_id
      where r.project_id = $1 and r.model = $2 and r.status = 'completed'
      order by r.finished_at, r.id`,
    [project_id, model],
  )
  return rows
}

/** The kind of device that work was done on, once it has begun. */
export async function deviceOfWork(db: Db, id: string): Promise<string | null> {
  const { rows } = await db.query<{ device: string | null }>(
    'select device from work where id = $1',
    [id],
  )
  return rows[0]?.device ?? null
}

/** An answer that was kept. */
export interface KeptAnswer {
  object: 'chat.completion' | 'response'
  id: string
  model: string
  created_at: Date
}

/** What these models have answered and was kept, newest first, older than the answer `after`. */
export async function answersOf(
  db: Db,
  query: {
    project_id: string
    models: readonly string[]
    after?: string | undefined
    limit: number
  },
): Promise<KeptAnswer[]> {
  const { rows } = await db.query<KeptAnswer>(
    `with kept as (
       select 'chat.completion' as object, id, model, created_at from chat_completions
        where project_id = $1
       union all
       select 'response', id, response ->> 'model', created_at from responses
        where project_id = $1
     )
     select * from kept
      where model = any($2)
        and ($3::text is null
             or (created_at, id) < (select created_at, id from kept where id = $3))
      order by created_at desc, id desc
      limit $4`,
    [query.project_id, query.models, query.after ?? null, query.limit],
  )
  return rows
}
