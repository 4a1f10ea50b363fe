// The service's parts over a fresh database and a fresh folder of objects, for tests of routes.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { createKey, ensureBootstrapKey, newKey, type Scope } from '../../src/service/auth/keys.ts'
import { findFile } from '../../src/service/db/files.ts'
import type { Pool } from '../../src/service/db/pool.ts'
import { createFiles, type Files } from '../../src/service/files/files.ts'
import { type AppDeps, buildApp } from '../../src/service/http/app.ts'
import { createJobs } from '../../src/service/jobs/jobs.ts'
import { openModels } from '../../src/service/models/registry.ts'
import { Device } from '../../src/service/scheduler/devices.ts'
import { Serving } from '../../src/service/scheduler/serving.ts'
import { openFolderStore } from '../../src/service/storage/folder.ts'
import type { ObjectStore } from '../../src/service/storage/object-store.ts'
import { testLog } from './log.ts'
import { freshDatabase } from './postgres.ts'

export interface TestService extends AsyncDisposable {
  readonly app: FastifyInstance
  readonly db: Pool
  readonly store: ObjectStore
  readonly files: Files
  /** Where the objects lie. */
  readonly folder: string
  readonly project_id: string
  /** The admin key. */
  readonly key: string
  /** A key of another scope, of the same project unless another is named. */
  keyOf(scope: Scope, project_id?: string): Promise<string>
  /** Another project of the same organization. */
  anotherProject(): Promise<string>
}

/** Builds the app as server.ts does; `deps` replaces what a test wants otherwise. */
export const startService = async (
  deps: Partial<AppDeps> & { fileLimit?: number } = {},
): Promise<TestService> => {
  const database = await freshDatabase()
  const { db } = database
  const folder = await mkdtemp(join(tmpdir(), 'luthier-objects-'))
  const store = await openFolderStore(folder)
  const files = createFiles({ db, store, log: testLog }, deps.fileLimit)
  const key = newKey()
  const { project_id, organization_id } = await ensureBootstrapKey(db, key, {
    replacesOthers: false,
  })
  const stores = { db, store }
  const models = await openModels({
    db,
    folder: join(folder, 'models'),
    aliases: {},
    discard: async () => {},
  })
  const jobs = createJobs({ stores, models, findFile: (project, id) => findFile(db, project, id) })
  const serving = new Serving({
    takeTurn: new Device().turns('serving'),
    cache: join(folder, 'cache'),
    adapterFile: async () => {
      throw new Error('There is no tuned model here.')
    },
    log: testLog,
  })
  const health = { whyNotReady: async () => undefined }
  const app = await buildApp({
    log: testLog,
    db,
    files,
    health,
    models: { models },
    fineTuning: { jobs },
    inference: { models, serving },
    ...deps,
  })
  let made = 0
  return {
    app,
    db,
    store,
    files,
    folder,
    project_id,
    key,
    keyOf: async (scope, project = project_id) =>
      (await createKey(db, { project_id: project, name: scope, scope })).key,
    anotherProject: async () => {
      const id = `proj_other${++made}`
      await db.query('insert into projects (id, organization_id, name) values ($1, $2, $1)', [
        id,
        organization_id,
      ])
      return id
    },
    [Symbol.asyncDispose]: async () => {
      await app.close()
      await serving[Symbol.asyncDispose]()
      await files[Symbol.asyncDispose]()
      await database[Symbol.asyncDispose]()
      await rm(folder, { recursive: true })
    },
  }
}

/** The header of a key. */
export const bearer = (key: string) => ({ authorization: `Bearer ${key}` })
