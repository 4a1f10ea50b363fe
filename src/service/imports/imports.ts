// What can be asked about imports: create, look, cancel. Doing them is `scheduler/run-import.ts`'s.

import { invalidRequest, notFound } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { badCursor, type Cursor } from '../cursor.ts'
import {
  endImport,
  findImport,
  type Import,
  insertImport,
  listImports,
  type ReceivedFile,
} from '../db/imports.ts'
import { transaction } from '../db/pool.ts'
import { cancelWork, insertWork } from '../db/work.ts'
import type { WorkEvent } from '../db/work-events.ts'
import type { Files } from '../files/files.ts'
import { newId } from '../ids.ts'
import type { JobOwner } from '../jobs/jobs.ts'
import type { ModelRegistry } from '../models/registry.ts'
import type { Stores } from '../storage/objects.ts'
import { eventsOf, tell } from '../work/events.ts'

export const IMPORT = 'import'

/** What files that are to become a model were uploaded for. */
export const IMPORT_PURPOSE = 'user_data'

export interface CreateImport {
  files: readonly string[]
  base_model?: string | null
  suffix?: string | null
  metadata?: Record<string, string> | null
}

export interface Imports {
  /** Checks that the files are there; what is in them is judged by the work. */
  create(owner: JobOwner, request: CreateImport): Promise<Import>
  retrieve(project_id: string, id: string): Promise<Import>
  /** One more than `limit`, where there are more. */
  list(project_id: string, query: Cursor): Promise<Import[]>
  cancel(project_id: string, id: string): Promise<Import>
  events(project_id: string, id: string, query: Cursor): Promise<WorkEvent[]>
}

export interface ImportsDeps {
  stores: Stores
  files: Pick<Files, 'retrieve'>
  models: Pick<ModelRegistry, 'resolveRoot'>
  log: Pick<Logger, 'info'>
}

/** The imports of all projects. */
export function createImports({ stores, files, models, log }: ImportsDeps): Imports {
  const { db } = stores

  const retrieve = async (project_id: string, id: string): Promise<Import> => {
    const found = await findImport(db, project_id, id)
    if (!found) throw notFound(`Could not find import: ${id}`, { param: 'import_id' })
    return found
  }

  const received = async (project_id: string, id: string, param: string): Promise<ReceivedFile> => {
    const file = await files.retrieve(project_id, id)
    if (file.purpose !== IMPORT_PURPOSE)
      throw invalidRequest(
        `The file ${id} was uploaded for '${file.purpose}': what is to become a model has the purpose '${IMPORT_PURPOSE}'.`,
        { param, code: 'invalid_file_purpose' },
      )
    return { source: file.id, filename: file.filename, sha256: file.sha256, bytes: file.bytes }
  }

  return {
    retrieve,

    async create({ project_id, organization_id }, request) {
      const { base_model = null, suffix = null, metadata = null } = request
      if (base_model !== null && !(await models.resolveRoot(project_id, base_model)))
        throw notFound(`There is no model \`${base_model}\` with weights of its own.`, {
          param: 'base_model',
          code: 'model_not_found',
        })
      const given = await Promise.all(
        request.files.map((id, at) => received(project_id, id, `files.${at}`)),
      )
      const id = newId('ftimport-')
      const created = await transaction(db, async (tx) => {
        await insertWork(tx, { id, kind: IMPORT, project_id })
        await tell(tx, id, 'created', `Created import: ${id}`)
        return insertImport(tx, {
          id,
          project_id,
          organization_id,
          received: given,
          base_model,
          user_provided_suffix: suffix,
          metadata,
        })
      })
      log.info({ import: id, project: project_id }, 'import created')
      return created
    },

    async list(project_id, { after, limit }) {
      if (after !== undefined && !(await findImport(db, project_id, after))) throw badCursor(after)
      return listImports(db, { project_id, after, limit: limit + 1 })
    },

    async cancel(project_id, id) {
      await retrieve(project_id, id)
      const cancelled = await transaction(db, async (tx) => {
        await cancelWork(tx, id)
        const ended = await endImport(tx, id, { status: 'cancelled' })
        if (!ended)
          throw invalidRequest(`Import has already completed: ${id}`, {
            code: 'invalid_import_state',
          })
        await tell(tx, id, 'cancelled', 'Import cancelled')
        return ended
      })
      log.info({ import: id }, 'import cancelled')
      return cancelled
    },

    async events(project_id, id, query) {
      await retrieve(project_id, id)
      return eventsOf(db, id, query)
    },
  }
}
