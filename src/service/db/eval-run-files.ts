// The table `eval_run_files`: the weights of a search's candidate, which no model names, until it has its score.

import type { EvalRun } from './eval-runs.ts'
import type { ModelFile } from './models.ts'
import type { Db } from './pool.ts'

/** Its objects must be there already. */
export async function insertRunFiles(
  tx: Db,
  { id, project_id }: Pick<EvalRun, 'id' | 'project_id'>,
  files: readonly Pick<ModelFile, 'path' | 'sha256'>[],
): Promise<void> {
  await tx.query(
    `insert into eval_run_files (run_id, project_id, path, sha256)
     select $1, $2, path, sha256 from json_to_recordset($3) as f (path text, sha256 text)`,
    [id, project_id, JSON.stringify(files)],
  )
}

/** In the order of their names; none where the run asks a model. */
export async function listRunFiles(
  db: Db,
  run_id: string,
): Promise<Pick<ModelFile, 'path' | 'sha256'>[]> {
  const { rows } = await db.query<Pick<ModelFile, 'path' | 'sha256'>>(
    'select path, sha256 from eval_run_files where run_id = $1 order by path collate "C"',
    [run_id],
  )
  return rows
}

/** Of these runs; returns the hashes of the objects that they had. */
export async function deleteRunFiles(tx: Db, run_ids: readonly string[]): Promise<string[]> {
  const { rows } = await tx.query<Pick<ModelFile, 'sha256'>>(
    'delete from eval_run_files where run_id = any ($1) returning sha256',
    [run_ids],
  )
  return rows.map(({ sha256 }) => sha256)
}
