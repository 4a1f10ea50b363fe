// An API process and workers, each a real server of its own, on one database and one store of objects.

import { rmSync } from 'node:fs'
import type { Pool } from '../../src/service/db/pool.ts'
import { type LuthierServer, makeHome, startLuthier } from './luthier-server.ts'
import { objectSettings, onS3 } from './objects.ts'
import { freshDatabase } from './postgres.ts'

export interface Cluster extends AsyncDisposable {
  readonly api: LuthierServer
  readonly workers: readonly LuthierServer[]
  /** The database that they share. */
  readonly db: Pool
}

/** Objects in a folder are shared by a common home; in a bucket they need none, so each process has its own. */
export async function startCluster(
  models: Record<string, string>,
  options: { workers: number; databaseUrl?: (url: string) => string } = { workers: 2 },
): Promise<Cluster> {
  const database = await freshDatabase()
  const common = makeHome(models)
  const objects = await objectSettings(common)
  const homes = [common]
  const started: LuthierServer[] = []
  const stop = async () => {
    for (const server of started) await server.stop()
    for (const home of homes) rmSync(home, { recursive: true, force: true })
    await objects.remove()
    await database[Symbol.asyncDispose]()
  }
  const start = async (role: 'api' | 'worker') => {
    const home = onS3 && started.length > 0 ? makeHome(models) : common
    if (home !== common) homes.push(home)
    const settings = {
      LUTHIER_ROLE: role,
      DATABASE_URL: options.databaseUrl?.(database.url) ?? database.url,
      ...objects.env,
    }
    const server = await startLuthier(home, settings)
    started.push(server)
    return server
  }
  try {
    const api = await start('api')
    const workers: LuthierServer[] = []
    for (let i = 0; i < options.workers; i++) workers.push(await start('worker'))
    return { api, workers, db: database.db, [Symbol.asyncDispose]: stop }
  } catch (error) {
    await stop()
    throw error
  }
}
