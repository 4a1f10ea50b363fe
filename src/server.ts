// The composition root: builds every part, hands each what it needs, starts, stops.

import { realpathSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import closeWithGrace from 'close-with-grace'
import { type Config, readConfig } from './config.ts'
import { capabilitiesOf } from './engine/runtime/device.ts'
import { checkDevice } from './engine/train/check-device.ts'
import { DRAIN_MS, drain, listen, reachedFromOutside } from './listening.ts'
import { createLog, type Logger } from './log.ts'
import { createChatCompletions } from './service/answers/chat-completions.ts'
import { createResponses } from './service/answers/responses.ts'
import { readOrMakeKey } from './service/auth/bootstrap.ts'
import { ensureBootstrapKey } from './service/auth/keys.ts'
import { createBatches } from './service/batches/batches.ts'
import { startEmbeddedPostgres } from './service/db/embedded-postgres.ts'
import { removeEndedCursors } from './service/db/ended-cursors.ts'
import { migrate } from './service/db/migrate.ts'
import { openPool, type Pool } from './service/db/pool.ts'
import { createComparisons } from './service/evals/comparisons.ts'
import { createEvals } from './service/evals/evals.ts'
import { Grading } from './service/evals/grading.ts'
import { latestEval } from './service/evals/latest.ts'
import { createRuns } from './service/evals/runs.ts'
import { createFiles } from './service/files/files.ts'
import { createUploads } from './service/files/uploads.ts'
import { buildAnswers, buildApp, buildWorkerApp } from './service/http/app.ts'
import { RateLimits } from './service/http/rate-limits.ts'
import { createImports } from './service/imports/imports.ts'
import { createExamples } from './service/jobs/examples.ts'
import { createJobs } from './service/jobs/jobs.ts'
import { createMerges } from './service/merges/merges.ts'
import { createMetrics } from './service/metrics/metrics.ts'
import { openModels } from './service/models/registry.ts'
import { createModelWeights } from './service/models/weights.ts'
import { createProvenance } from './service/provenance/provenance.ts'
import { adapterFiles } from './service/scheduler/adapter-files.ts'
import { startBatching } from './service/scheduler/batching.ts'
import { DevicePool } from './service/scheduler/device-pool.ts'
import { startEvaluating } from './service/scheduler/evaluating.ts'
import { createGraders } from './service/scheduler/graders.ts'
import { modelFolders } from './service/scheduler/model-folders.ts'
import { withoutFolders } from './service/scheduler/own-folders.ts'
import { createPreflights } from './service/scheduler/preflights.ts'
import { newWorkerToken, registerWorker } from './service/scheduler/registration.ts'
import { RelayedServing } from './service/scheduler/relayed-serving.ts'
import { startImporting } from './service/scheduler/run-import.ts'
import { startMerging } from './service/scheduler/run-merge.ts'
import { Serving } from './service/scheduler/serving.ts'
import { startTraining } from './service/scheduler/training.ts'
import { clearLeftovers } from './service/storage/cache-leftovers.ts'
import { createDiskQuota } from './service/storage/disk-quota.ts'
import { localFile } from './service/storage/local-file.ts'
import { objectKey } from './service/storage/object-store.ts'
import { openStore } from './service/storage/open.ts'
import { sweepObjects } from './service/storage/sweep.ts'
import { startSweeper } from './service/storage/sweeper.ts'
import { sweepKind } from './service/sweeps/run-sweep.ts'
import { createSweeps } from './service/sweeps/sweeps.ts'
import { createShutdown, type Shutdown } from './shutdown.ts'

export interface RunningServer extends AsyncDisposable {
  /** Without a path: `http://127.0.0.1:8080`; the API is under `/v1`. */
  readonly url: string
  /** The bootstrap admin key; a worker, which nobody asks with one, makes none. */
  readonly apiKey: string
  /** Where a key that was made by this very start is kept: the moment to show it. */
  readonly newKeyPath: string | undefined
  /** Drains and stops everything, phase by phase; the embedded Postgres last. */
  close(): Promise<void>
}

/** As package.json has it; statements on models say it. */
export const VERSION = '0.1.0'

const HOUR_MS = 60 * 60 * 1000
const DAY_MS = 24 * HOUR_MS

/** Starts all parts. When one fails, those that run already are stopped again. */
export const startServer = async (
  config: Config,
  log: Logger = createLog(config.logLevel),
): Promise<RunningServer> => {
  const shutdown = createShutdown(log)
  try {
    // Others may pass through, for the database may run as another user; they read nothing.
    await mkdir(config.home, { recursive: true, mode: 0o711 })

    // State: Postgres, then objects.
    const databaseUrl = config.databaseUrl ?? (await startDatabase(config, log, shutdown))
    await migrate(databaseUrl, log)
    const db = openPool(databaseUrl, log)
    shutdown.add('close pools', () => db.end())
    const store = await openStore(config)
    const key = await settleKey(config, db)

    // What the API is about.
    const stores = { db, store }
    const quota = createDiskQuota(db, config.projectDiskLimit)
    const files = createFiles({ ...stores, quota, log })
    const uploads = createUploads({ ...stores, quota, files, log })
    const cache = join(config.home, 'cache')
    const folders = modelFolders({
      folder: join(cache, 'models'),
      open: (project_id, sha256) => localFile(store, objectKey(project_id, sha256)),
    })
    const models = await openModels({
      stores,
      folder: config.models,
      folders,
      aliases: config.modelAliases,
      log,
    })
    // Other processes on the database may have more devices; the embedded one has no others.
    const { count } = config.devices
    const known = config.databaseUrl === undefined ? count : undefined
    const jobs = createJobs({
      stores,
      models,
      log,
      devices: known,
    })

    // Who computes: this process, or workers that it asks.
    await mkdir(cache, { recursive: true, mode: 0o700 })
    const pool = new DevicePool(count, config.trainingShare)
    const { device, threads } = config.devices
    if (config.role !== 'api' && capabilitiesOf(device).tested) {
      const error = await checkDevice(device)
      log.info({ device, error }, 'device has passed its self-test')
    }
    const adapterFile = adapterFiles({
      folder: join(cache, 'adapters'),
      read: (project_id, sha256) => store.get(objectKey(project_id, sha256)),
    })
    // No message to a client names a folder of this machine.
    const machineFolders = [config.home, config.models, tmpdir()]
    const told = (message: string) => withoutFolders(message, machineFolders)
    const provenance = createProvenance({ stores, models, version: VERSION })
    const weights = createModelWeights({ models, adapterFile, provenance })
    const local =
      config.role === 'api'
        ? undefined
        : new Serving({
            takeTurn: pool.serving.turns('serving'),
            threads,
            precision: config.precision,
            ...(config.adapterMemory !== undefined && { adapterBytes: config.adapterMemory }),
            timed: (what, seconds) => metrics.timed(what, seconds),
            cache: join(cache, 'weights'),
            adapterFile,
            log,
          })
    const serving = local ?? new RelayedServing({ db, log })
    shutdown.add('stop computing', () => serving[Symbol.asyncDispose]())
    const kept = { responses: createResponses(db), completions: createChatCompletions(db) }
    const answering = { ...kept, moderation_model: config.moderationModel }
    const grading = new Grading()
    shutdown.add('stop computing', () => grading[Symbol.asyncDispose]())
    const evals = createEvals({ stores, grading, log })
    const metrics = createMetrics({ db, serving, device: pool })
    if (local) {
      const training = startTraining({
        stores,
        models,
        log,
        cache: join(cache, 'weights'),
        // Training has no four bits.
        precision: config.precision === 'int4' ? 'auto' : config.precision,
        adapterFile,
        pool,
        compute: { device, threads },
        folders: machineFolders,
        metrics,
        others: [sweepKind({ stores, jobs, models, log })],
        serving: local,
      })
      shutdown.add('stop listening', async () => void training.stop())
      shutdown.add('checkpoint running work', () => training.stop())
      const evaluating = startEvaluating({
        stores,
        models,
        adapterFile,
        folders,
        serving: local,
        log,
        device,
      })
      shutdown.add('stop listening', async () => void evaluating.stop())
      shutdown.add('checkpoint running work', () => evaluating.stop())
      const merging = startMerging({
        stores,
        models,
        adapterFile,
        folders,
        told,
        threads: availableParallelism(),
        takeTurn: pool.serving.turns('training'),
        cache: join(cache, 'weights'),
        device,
        warm: (model) => local.warm(model),
        log,
      })
      shutdown.add('stop listening', async () => void merging.stop())
      shutdown.add('checkpoint running work', () => merging.stop())
      const answers = await buildAnswers({
        log,
        metrics,
        inference: { models, serving: local, ...answering },
      })
      const batching = startBatching({ stores, answer: answers.answer, log, device })
      shutdown.add('stop listening', async () => void batching.stop())
      shutdown.add('checkpoint running work', () => batching.stop())
      shutdown.add('stop computing', () => answers[Symbol.asyncDispose]())
      const importing = startImporting({
        stores,
        models,
        folders,
        quota,
        told,
        device,
        warm: (model) => local.warm(model),
        log,
      })
      shutdown.add('stop listening', async () => void importing.stop())
      shutdown.add('checkpoint running work', () => importing.stop())
    }

    const sweeper = startSweeper({
      log,
      every_ms: HOUR_MS,
      tasks: {
        files: files.sweep,
        uploads: uploads.sweep,
        cursors: () => removeEndedCursors(db),
        responses: kept.responses.sweep,
        completions: kept.completions.sweep,
        objects: () => sweepObjects(stores, { grace_ms: DAY_MS, stale_ms: DAY_MS, log }),
        caches: async () => {
          const places = ['weights', 'adapters', 'models'].map((name) => join(cache, name))
          const removed = await clearLeftovers(places, DAY_MS)
          if (removed.length > 0) log.info({ removed }, 'leftovers of caches removed')
        },
      },
    })
    shutdown.add('stop computing', () => sweeper[Symbol.asyncDispose]())

    // The door.
    let isDraining = false
    const health = {
      whyNotReady: async () => (isDraining ? 'shutting down' : whyNoDatabase(db)),
    }
    const token = newWorkerToken()
    const limits = new RateLimits(config.limits)
    const app =
      config.role === 'worker'
        ? await buildWorkerApp({ log, health, metrics, internal: { token, models, serving } })
        : await buildApp({
            log,
            db,
            files,
            uploads,
            models: { models, latestEval: (...which) => latestEval(db, ...which) },
            provenance: { weights, provenance },
            fineTuning: { jobs, db },
            preflights: {
              jobs,
              preflights: createPreflights({
                stores,
                models,
                devices: known,
                precision: config.precision === 'int4' ? 'auto' : config.precision,
                compute: { device, threads },
                cache: join(cache, 'weights'),
                ...(local && { takeTurn: pool.serving.turns('training') }),
              }),
            },
            sweeps: { sweeps: createSweeps({ stores, models, log }) },
            merges: {
              merges: createMerges({ stores, models, adapterFile, quota, told, log }),
            },
            batches: { batches: createBatches({ db, log }) },
            imports: { imports: createImports({ stores, files, models, log }) },
            examples: { examples: createExamples({ stores, jobs, files, log }) },
            inference: {
              models,
              serving,
              limits,
              ...answering,
              request_ms: config.requestSeconds * 1000,
            },
            evals: { evals, runs: createRuns({ stores, evals, models, grading, log }) },
            comparisons: {
              comparisons: createComparisons({ stores, evals, models, grading, log }),
            },
            graders: { graders: createGraders({ models, serving, grading }), limits },
            metrics,
            health,
          })
    let drained: Promise<void> | undefined
    shutdown.add('stop listening', async () => {
      drained = drain(app, log)
    })
    shutdown.add('finish requests', async () => drained)
    const url = await listen(app, config)
    if (config.role === 'worker' && local) {
      const reached = config.workerUrl ?? reachedFromOutside(url, config)
      const worker = await registerWorker({ db, log, url: reached, token, serving: local })
      shutdown.add('stop listening', () => worker[Symbol.asyncDispose]())
    }
    log.info({ url, home: config.home, role: config.role }, 'ready')

    const close = () => {
      isDraining = true
      return shutdown.run()
    }
    return { ...key, url, close, [Symbol.asyncDispose]: close }
  } catch (error) {
    await shutdown.run()
    throw error
  }
}

const startDatabase = async (config: Config, log: Logger, shutdown: Shutdown): Promise<string> => {
  const postgres = await startEmbeddedPostgres({ home: config.home, log })
  shutdown.add('stop embedded Postgres', () => postgres.stop())
  return postgres.url
}

const settleKey = async (config: Config, db: Pool) => {
  // Nobody asks a worker with a key.
  if (config.role === 'worker') return { apiKey: config.apiKey ?? '', newKeyPath: undefined }
  const made = config.apiKey === undefined ? await readOrMakeKey(config.home) : undefined
  const apiKey = config.apiKey ?? made!.key
  await ensureBootstrapKey(db, apiKey, { replacesOthers: config.apiKey !== undefined })
  return { apiKey, newKeyPath: made?.isNew ? made.path : undefined }
}

const whyNoDatabase = async (db: Pool): Promise<string | undefined> => {
  try {
    await db.query('select 1')
    return undefined
  } catch {
    return 'the database cannot be reached'
  }
}

/** `npm start`: the server alone, until a signal ends it. */
const main = async (): Promise<void> => {
  const config = readConfig(process.env)
  const log = createLog(config.logLevel)
  const starting = startServer(config, log)
  // From here on, for a stop while all is still starting must not leave the database behind either.
  const onSecondSignal = (signal: string) => {
    log.warn({ signal }, 'second signal: ending at once')
    endAtOnce()
  }
  const onTimeout = (ms: number) => {
    log.error({ ms }, 'not stopped in time: ending at once')
    endAtOnce()
  }
  const onSecondError = (err: unknown) => {
    log.fatal({ err }, 'another error that nobody handled: ending at once')
    endAtOnce()
  }
  closeWithGrace(
    { delay: 3 * DRAIN_MS, logger: false, onSecondSignal, onSecondError, onTimeout },
    async ({ signal, err }) => {
      if (err) log.fatal({ err }, 'stopping after an error that nobody handled')
      else log.info({ signal }, 'stopping')
      const server = await starting.catch(() => undefined)
      await server?.close()
      log.info('stopped')
    },
  )
  const server = await starting
  if (server.newKeyPath !== undefined)
    process.stderr.write(
      `An API key was made, it is shown only now: ${server.apiKey}\n(kept in ${server.newKeyPath})\n`,
    )
}

/** As a crash, which the next start goes on from: an exit under a thread that computes would abort in native code. */
function endAtOnce(): void {
  process.kill(process.pid, 'SIGKILL')
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href)
  await main().catch((error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  })
