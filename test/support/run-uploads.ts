// A process that uploads and deletes equal bytes for two projects until it is killed: by itself at a seam between
// object and transaction, by its parent, or never. Says on standard output what it was told is done.

import { randomInt } from 'node:crypto'
import { Readable } from 'node:stream'
import { openPool } from '../../src/service/db/pool.ts'
import { createFiles } from '../../src/service/files/files.ts'
import { createDiskQuota } from '../../src/service/storage/disk-quota.ts'
import { openFolderStore } from '../../src/service/storage/folder.ts'
import type { ObjectStore } from '../../src/service/storage/object-store.ts'
import { openS3Store } from '../../src/service/storage/s3.ts'
import { testLog } from './log.ts'
import { s3Server } from './s3.ts'

export interface UploadsRun {
  url: string
  store: { folder: string } | { bucket: string; cache: string }
  projects: string[]
  bodies: string[]
  uploads: number
  deletions: string[]
  /** Where it kills itself, and at which passage. */
  dies?: { at: 'staged' | 'kept' | 'written' | 'row gone' | 'deleted'; passage: number }
}

const run = JSON.parse(process.argv[2]!) as UploadsRun
const say = (line: object) =>
  new Promise<void>((done) => process.stdout.write(`${JSON.stringify(line)}\n`, () => done()))

let passages = 0
const dieAt = (place: NonNullable<UploadsRun['dies']>['at']) => {
  if (run.dies?.at === place && ++passages === run.dies.passage)
    process.kill(process.pid, 'SIGKILL')
}

/** The real store; only that it may be the last thing that this process does. */
const mortal = (store: ObjectStore): ObjectStore => ({
  ...store,
  stage: async (body) => {
    const staged = await store.stage(body)
    dieAt('staged')
    return {
      ...staged,
      keep: async (project_id) => {
        const key = await staged.keep(project_id)
        dieAt('kept')
        return key
      },
    }
  },
  delete: async (key) => {
    dieAt('row gone')
    await store.delete(key)
    dieAt('deleted')
  },
})

const db = openPool(run.url, testLog)
const store = mortal(
  'folder' in run.store
    ? await openFolderStore(run.store.folder)
    : await openS3Store({
        ...s3Server()!,
        bucket: run.store.bucket,
        forcePathStyle: true,
        cache: { folder: run.store.cache, limit_bytes: 1e9 },
      }),
)
const files = createFiles({ db, store, log: testLog, quota: createDiskQuota(db, undefined) })

const upload = async () => {
  const project = run.projects[randomInt(run.projects.length)]!
  const body = run.bodies[randomInt(run.bodies.length)]!
  const received = await files.receive(project, Readable.from([Buffer.from(body)]))
  const row = { filename: 'a.txt', purpose: 'user_data' as const }
  const file = await files.create(project, row, received, async () => dieAt('written'))
  await say({ uploaded: file.id, project })
}
const remove = async () => {
  const [project, id] = run.deletions.shift()!.split('/') as [string, string]
  await files.delete(project, id)
  await say({ deleted: id })
}

// Several at once, so that uploads and deletions of the same bytes meet.
await Promise.all(
  [1, 2, 3].map(async () => {
    while (run.uploads > 0 || run.deletions.length > 0)
      if (run.uploads > 0 && (run.deletions.length === 0 || randomInt(2) === 0)) {
        run.uploads--
        await upload()
      } else await remove()
  }),
)
await say({ ended: true })
await db.end()
process.exit(0)
