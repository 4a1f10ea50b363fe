// What can be asked about evals: create, look, change, delete. Their runs are in runs.ts.

import type { Grader } from '../../engine/eval/grader.ts'
import { mistakeOfSchema } from '../../engine/eval/items.ts'
import { invalidRequest, notFound } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { badCursor } from '../cursor.ts'
import { deleteRunFiles } from '../db/eval-run-files.ts'
import { runsOfEval } from '../db/eval-runs.ts'
import {
  type DataSourceConfig,
  deleteEval,
  type Eval,
  type EvalQuery,
  findEval,
  insertEval,
  listEvals,
  updateEval,
} from '../db/evals.ts'
import { transaction } from '../db/pool.ts'
import { cancelWork } from '../db/work.ts'
import { newId } from '../ids.ts'
import { releaseObjects, type Stores } from '../storage/objects.ts'
import { releaseItems } from './data.ts'
import type { Grading } from './grading.ts'

/** A request that fits the schema. */
export interface CreateEval {
  name?: string
  metadata?: Record<string, string> | null
  data_source_config: DataSourceConfig | { type: 'logs' | 'stored_completions' }
  testing_criteria: Grader[]
}

export interface EvalsDeps {
  stores: Stores
  grading: Grading
  log: Pick<Logger, 'info'>
}

export interface Evals {
  create(project_id: string, request: CreateEval): Promise<Eval>
  /** 404 unless the project has it. */
  retrieve(project_id: string, id: string): Promise<Eval>
  /** One more than `limit`, where there are more. */
  list(project_id: string, query: EvalQuery): Promise<Eval[]>
  update(
    project_id: string,
    id: string,
    to: { name?: string | undefined; metadata?: Record<string, string> | null | undefined },
  ): Promise<Eval>
  /** With its runs; those under way are ended. */
  delete(project_id: string, id: string): Promise<void>
}

export function createEvals({ stores, grading, log }: EvalsDeps): Evals {
  const { db } = stores

  async function retrieve(project_id: string, id: string): Promise<Eval> {
    const one = await findEval(db, project_id, id)
    if (!one) throw evalNotFound(id)
    return one
  }

  return {
    retrieve,

    async create(project_id, { name, metadata, data_source_config, testing_criteria }) {
      if (data_source_config.type !== 'custom')
        throw invalidRequest(
          `An eval cannot draw on ${data_source_config.type === 'logs' ? 'logs' : 'stored completions'} here. Use a data source config of type 'custom' and give the rows to each run.`,
          { param: 'data_source_config.type', code: 'unsupported_data_source' },
        )
      const mistake = mistakeOfSchema(data_source_config.item_schema)
      if (mistake !== undefined)
        throw invalidRequest(`Invalid 'data_source_config.item_schema': it ${mistake}.`, {
          param: 'data_source_config.item_schema',
          code: 'invalid_schema',
        })
      await grading.check(
        testing_criteria.map((grader, i) => ({ grader, param: `testing_criteria[${i}]` })),
      )
      const names = testing_criteria.map((grader) => grader.name)
      const twice = names.find((one, i) => names.indexOf(one) !== i)
      if (twice !== undefined)
        throw invalidRequest(`Invalid 'testing_criteria': two are called '${twice}'.`, {
          param: 'testing_criteria',
          code: 'invalid_value',
        })
      const created = await insertEval(db, {
        id: newId('eval_'),
        project_id,
        name: name ?? names.join(', ').slice(0, 256),
        data_source_config,
        testing_criteria,
        metadata: metadata ?? null,
      })
      log.info({ eval: created.id, project: project_id }, 'eval created')
      return created
    },

    async list(project_id, query) {
      if (query.after !== undefined && !(await findEval(db, project_id, query.after)))
        throw badCursor(query.after)
      return listEvals(db, project_id, { ...query, limit: query.limit + 1 })
    },

    async update(project_id, id, { name, metadata }) {
      const updated = await updateEval(db, project_id, id, { name, metadata })
      if (!updated) throw evalNotFound(id)
      return updated
    },

    async delete(project_id, id) {
      await retrieve(project_id, id)
      const { runs, weights } = await transaction(db, async (tx) => {
        const own = await runsOfEval(tx, id)
        // The work first: its holder's transactions lock it first too.
        for (const run of own) await cancelWork(tx, run.id)
        const ids = own.map((run) => run.id)
        const weights = await deleteRunFiles(tx, ids)
        if (!(await deleteEval(tx, project_id, id))) throw evalNotFound(id)
        return { runs: own, weights }
      })
      for (const run of runs) await releaseItems(stores, project_id, run)
      await releaseObjects(stores, project_id, weights)
      log.info({ eval: id, runs: runs.length }, 'eval deleted')
    },
  }
}

export const evalNotFound = (id: string) =>
  notFound(`No eval found with id '${id}'.`, { param: 'eval_id' })
