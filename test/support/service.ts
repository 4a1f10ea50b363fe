// The service's parts over a fresh database and a fresh store of objects, for tests of routes.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { createChatCompletions } from '../../src/service/answers/chat-completions.ts'
import { createResponses } from '../../src/service/answers/responses.ts'
import {
  type Caller,
  createKey,
  ensureBootstrapKey,
  newKey,
  type Scope,
} from '../../src/service/auth/keys.ts'
import { createBatches } from '../../src/service/batches/batches.ts'
import type { Pool } from '../../src/service/db/pool.ts'
import { createComparisons } from '../../src/service/evals/comparisons.ts'
import { createEvals } from '../../src/service/evals/evals.ts'
import { Grading } from '../../src/service/evals/grading.ts'
import { latestEval } from '../../src/service/evals/latest.ts'
import { createRuns } from '../../src/service/evals/runs.ts'
import { createFiles, type Files } from '../../src/service/files/files.ts'
import { createUploads, type Uploads } from '../../src/service/files/uploads.ts'
import { type AppDeps, buildAnswers, buildApp } from '../../src/service/http/app.ts'
import { type Limits, RateLimits } from '../../src/service/http/rate-limits.ts'
import { createImports } from '../../src/service/imports/imports.ts'
import { createExamples } from '../../src/service/jobs/examples.ts'
import { createJobs } from '../../src/service/jobs/jobs.ts'
import { createMerges } from '../../src/service/merges/merges.ts'
import { createMetrics } from '../../src/service/metrics/metrics.ts'
import { type ModelRegistry, openModels } from '../../src/service/models/registry.ts'
import { createModelWeights } from '../../src/service/models/weights.ts'
import { createProvenance } from '../../src/service/provenance/provenance.ts'
import { type AdapterFile, adapterFiles } from '../../src/service/scheduler/adapter-files.ts'
import { startBatching } from '../../src/service/scheduler/batching.ts'
import { DevicePool } from '../../src/service/scheduler/device-pool.ts'
import { startEvaluating } from '../../src/service/scheduler/evaluating.ts'
import { createGraders } from '../../src/service/scheduler/graders.ts'
import { modelFolders } from '../../src/service/scheduler/model-folders.ts'
import { withoutFolders } from '../../src/service/scheduler/own-folders.ts'
import { createPreflights } from '../../src/service/scheduler/preflights.ts'
import { Serving } from '../../src/service/scheduler/serving.ts'
import { createDiskQuota } from '../../src/service/storage/disk-quota.ts'
import { localFile } from '../../src/service/storage/local-file.ts'
import { type ObjectStore, objectKey } from '../../src/service/storage/object-store.ts'
import type { Stores } from '../../src/service/storage/objects.ts'
import { createSweeps } from '../../src/service/sweeps/sweeps.ts'
import type { Worker } from '../../src/service/work/worker.ts'
import { testLog } from './log.ts'
import { openObjects, type TestObjects } from './objects.ts'
import { checkInjected } from './openai-spec.ts'
import { freshDatabase } from './postgres.ts'

export interface TestService extends AsyncDisposable {
  readonly app: FastifyInstance
  readonly db: Pool
  readonly store: ObjectStore
  readonly stores: Stores
  readonly files: Files
  readonly uploads: Uploads
  readonly models: ModelRegistry
  readonly pool: DevicePool
  readonly adapterFile: AdapterFile
  readonly serving: Serving
  /** Who the admin key is. */
  readonly caller: Caller
  /** Starts claiming eval runs, as server.ts does. */
  startEvaluating(): Worker
  /** Starts claiming batches, as server.ts does. */
  startBatching(): Promise<Worker>
  /** For caches, gone at the end. */
  readonly folder: string
  /** Where its objects lie, and its rows, for a process that goes there itself. */
  readonly place: TestObjects['place']
  readonly databaseUrl: string
  /** The names of all that lies in the store. */
  stored(): Promise<string[]>
  readonly project_id: string
  /** The admin key. */
  readonly key: string
  /** A key of another scope, of the same project unless another is named. */
  keyOf(scope: Scope, project_id?: string): Promise<string>
  /** Another project of the same organization. */
  anotherProject(): Promise<string>
}

export type ServiceOptions = Partial<AppDeps> & {
  fileLimit?: number
  /** Instead of a store of its own; closed with the service. */
  objects?: TestObjects
  /** Bytes that a project may take. */
  diskLimit?: number
  /** Of one key. */
  limits?: Limits
  /** Of base models; without it there are none. */
  modelFolder?: string
  aliases?: Record<string, string>
  /** As LUTHIER_MODERATION_MODEL. */
  moderationModel?: string
}

const UNLIMITED = { requests_per_minute: 1e6, tokens_per_minute: 1e9 }

/** Builds the app as server.ts does; `deps` replaces what a test wants otherwise. */
export const startService = async (options: ServiceOptions = {}): Promise<TestService> => {
  const {
    fileLimit,
    objects = await openObjects(),
    diskLimit,
    limits = UNLIMITED,
    modelFolder,
    aliases,
    moderationModel,
    ...deps
  } = options
  const database = await freshDatabase()
  const { db } = database
  const folder = await mkdtemp(join(tmpdir(), 'luthier-service-'))
  const { store } = objects
  const quota = createDiskQuota(db, diskLimit)
  const files = createFiles({ db, store, quota, log: testLog }, fileLimit)
  const uploads = createUploads({ db, store, quota, files, log: testLog })
  const key = newKey()
  const caller = await ensureBootstrapKey(db, key, { replacesOthers: false })
  const { project_id, organization_id } = caller
  const stores = { db, store }
  const folders = modelFolders({
    folder: join(folder, 'cache', 'models'),
    open: (project, sha256) => localFile(store, objectKey(project, sha256)),
  })
  const models = await openModels({
    stores,
    folders,
    folder: modelFolder ?? join(folder, 'models'),
    aliases: aliases ?? {},
    log: testLog,
  })
  const jobs = createJobs({ stores, models, log: testLog })
  const pool = new DevicePool(1)
  const adapterFile = adapterFiles({
    folder: join(folder, 'cache', 'adapters'),
    read: (project, sha256) => store.get(objectKey(project, sha256)),
  })
  const serving = new Serving({
    takeTurn: pool.serving.turns('serving'),
    cache: join(folder, 'cache'),
    adapterFile,
    log: testLog,
  })
  const provenance = createProvenance({ stores, models, version: 'test' })
  const weights = createModelWeights({ models, adapterFile, provenance })
  const told = (message: string) => withoutFolders(message, [modelFolder ?? folder, folder])
  const kept = {
    responses: createResponses(db),
    completions: createChatCompletions(db),
    moderation_model: moderationModel,
  }
  const grading = new Grading()
  const evals = createEvals({ stores, grading, log: testLog })
  const rates = new RateLimits(limits)
  const metrics = createMetrics({ db, serving, device: pool })
  const health = { whyNotReady: async () => undefined }
  const app = await buildApp({
    log: testLog,
    db,
    files,
    uploads,
    health,
    models: { models, latestEval: (...which) => latestEval(db, ...which) },
    provenance: { weights, provenance },
    fineTuning: { jobs, db },
    preflights: {
      jobs,
      preflights: createPreflights({
        stores,
        models,
        precision: 'auto',
        compute: { device: 'cpu', threads: 1 },
        cache: join(folder, 'weights'),
        takeTurn: pool.serving.turns('training'),
      }),
    },
    sweeps: { sweeps: createSweeps({ stores, models, log: testLog }) },
    merges: {
      merges: createMerges({ stores, models, adapterFile, quota, told, log: testLog }),
    },
    batches: { batches: createBatches({ db, log: testLog }) },
    imports: { imports: createImports({ stores, files, models, log: testLog }) },
    examples: { examples: createExamples({ stores, jobs, files, log: testLog }) },
    inference: { models, serving, limits: rates, ...kept },
    evals: { evals, runs: createRuns({ stores, evals, models, grading, log: testLog }) },
    comparisons: {
      comparisons: createComparisons({ stores, evals, models, grading, log: testLog }),
    },
    graders: { graders: createGraders({ models, serving, grading }), limits: rates },
    metrics,
    ...deps,
  })
  checkInjected(app)
  const answers: AsyncDisposable[] = []
  let made = 0
  return {
    app,
    db,
    store,
    stores,
    files,
    uploads,
    models,
    pool,
    adapterFile,
    serving,
    caller,
    folder,
    startEvaluating: () =>
      startEvaluating({
        stores,
        models,
        adapterFile,
        folders,
        serving,
        log: testLog,
        device: 'cpu',
        poll_seconds: 0.2,
      }),
    startBatching: async () => {
      const deps = { log: testLog, metrics, inference: { models, serving, ...kept } }
      const asked = await buildAnswers(deps)
      answers.push(asked)
      return startBatching({
        stores,
        answer: asked.answer,
        log: testLog,
        device: 'cpu',
        poll_seconds: 0.2,
      })
    },
    stored: objects.stored,
    place: objects.place,
    databaseUrl: database.url,
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
      for (const asked of answers) await asked[Symbol.asyncDispose]()
      await grading[Symbol.asyncDispose]()
      await serving[Symbol.asyncDispose]()
      await database[Symbol.asyncDispose]()
      await objects[Symbol.asyncDispose]()
      await rm(folder, { recursive: true })
    },
  }
}

/** The header of a key. */
export const bearer = (key: string) => ({ authorization: `Bearer ${key}` })
