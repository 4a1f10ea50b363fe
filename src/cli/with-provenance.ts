// What export, verify and pull share: the settings' database, its models and its signing key.

import { join } from 'node:path'
import { readConfig } from '../config.ts'
import { createLog } from '../log.ts'
import { ensureFirstProject } from '../service/auth/keys.ts'
import { openDatabase } from '../service/db/database.ts'
import { type ModelRegistry, openModels } from '../service/models/registry.ts'
import { createModelWeights, type ModelWeights } from '../service/models/weights.ts'
import { createProvenance, type Provenance } from '../service/provenance/provenance.ts'
import { adapterFiles } from '../service/scheduler/adapter-files.ts'
import { type ModelFolders, modelFolders } from '../service/scheduler/model-folders.ts'
import { localFile } from '../service/storage/local-file.ts'
import { objectKey } from '../service/storage/object-store.ts'
import type { Stores } from '../service/storage/objects.ts'
import { openStore } from '../service/storage/open.ts'

export interface Owned {
  organization_id: string
  project_id: string
  weights: ModelWeights
  provenance: Provenance
  stores: Stores
  models: ModelRegistry
  folders: ModelFolders
}

/** Runs `use` on the models of the settings; a server may run on them meanwhile. */
export async function withProvenance(use: (owned: Owned) => Promise<void>): Promise<void> {
  const config = readConfig(process.env)
  const log = createLog('warn', 2)
  await using database = await openDatabase(config, log)
  const stores = { db: database.db, store: await openStore(config) }
  const { organization_id, project_id } = await ensureFirstProject(database.db)
  const aliases = config.modelAliases
  const folders = modelFolders({
    folder: join(config.home, 'cache', 'models'),
    open: (project, sha256) => localFile(stores.store, objectKey(project, sha256)),
  })
  const models = await openModels({ stores, folder: config.models, aliases, folders, log })
  const adapterFile = adapterFiles({
    folder: join(config.home, 'cache', 'adapters'),
    read: (project, sha256) => stores.store.get(objectKey(project, sha256)),
  })
  const provenance = createProvenance({ stores, models, version: '0.1.0' })
  const weights = createModelWeights({ models, adapterFile, provenance })
  await use({ organization_id, project_id, weights, provenance, stores, models, folders })
}
