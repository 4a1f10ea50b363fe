// A restore: a backup's rows and objects into an empty database, all of it or nothing.

import type { Logger } from '../../log.ts'
import type { Database } from '../db/database.ts'
import { migrate, migrationNames } from '../db/migrate.ts'
import {
  beginLoad,
  countRows,
  endLoad,
  listTables,
  migrationsOf,
  rowWriter,
  type Table,
} from '../db/snapshot.ts'
import type { ObjectStore } from '../storage/object-store.ts'
import { parseKey } from '../storage/object-store.ts'
import { createSum, END, type End, HEADER, type Header, type Tally, VERSION } from './format.ts'
import { readTar, type TarEntry } from './tar.ts'

export interface RestoreTarget {
  /** Not migrated yet, or with the very migrations of the backup; without a row. */
  readonly database: Database
  readonly store: ObjectStore
  readonly log: Logger
}

/** Reads a backup into the target, and checks it while it is read; only then anything is there. */
export const restore = async (
  target: RestoreTarget,
  source: AsyncIterable<Uint8Array>,
): Promise<Tally> => {
  const entries = readTar(source)
  try {
    return await load(target, entries)
  } finally {
    await entries.return(undefined)
  }
}

const load = async (
  { database, store, log }: RestoreTarget,
  entries: AsyncGenerator<TarEntry>,
): Promise<Tally> => {
  const { db, url } = database
  const sum = createSum()
  const first = await entries.next()
  if (first.done || first.value.name !== HEADER) throw new Error('This is no backup of Luthier.')
  const header = readHeader(await contentOf(first.value, sum))
  await refuseUnlessEmpty(database, header)
  await migrate(url, log, header.migrations.length)

  const tables = new Map<string, Table>(header.tables.map((table) => [table.name, table]))
  const writers = new Map<Table, (json: string) => Promise<number>>()
  const tally: Tally = { rows: 0, objects: 0, bytes: 0 }
  const kept: string[] = []
  let end: End | undefined
  const tx = await db.connect()
  try {
    const keys = await beginLoad(tx)
    for await (const entry of entries) {
      const [kind, ...path] = entry.name.split('/')
      if (entry.name === END) {
        const expected = sum.digest()
        end = JSON.parse(await contentOf(entry)) as End
        if (end.sha256 !== expected) throw damaged()
      } else if (kind === 'tables') {
        const table = tables.get(path[0] ?? '')
        if (!table) throw damaged()
        const write = writers.get(table) ?? (await rowWriter(tx, table))
        writers.set(table, write)
        tally.rows += await write(await contentOf(entry, sum))
      } else if (kind === 'objects') {
        await keep(store, path.join('/'), entry, sum)
        kept.push(path.join('/'))
        tally.objects++
        tally.bytes += entry.size
      } else throw damaged()
    }
    if (!end) throw new Error('The backup is cut: its end is missing.')
    const isWhole = (['rows', 'objects', 'bytes'] as const).every(
      (what) => end?.[what] === tally[what],
    )
    if (!isWhole) throw damaged()
    await endLoad(tx, keys)
  } catch (error) {
    await tx.query('rollback').catch(() => {})
    for (const key of kept) await store.delete(key).catch(() => {})
    throw error
  } finally {
    tx.release(true)
  }
  await migrate(url, log)
  return tally
}

type Sum = ReturnType<typeof createSum>

const contentOf = async (entry: TarEntry, sum?: Sum): Promise<string> => {
  sum?.entry(entry.name, entry.size)
  const chunks: Buffer[] = []
  for await (const chunk of entry.body) {
    sum?.bytes(chunk)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** Its name says what its bytes must be. */
const keep = async (store: ObjectStore, key: string, entry: TarEntry, sum: Sum): Promise<void> => {
  const { project_id, sha256 } = parseKey(key)
  sum.entry(entry.name, entry.size)
  async function* counted() {
    for await (const chunk of entry.body) {
      sum.bytes(chunk)
      yield chunk
    }
  }
  const staged = await store.stage(counted())
  try {
    if (staged.sha256 !== sha256) throw damaged()
    await staged.keep(project_id)
  } finally {
    await staged.discard()
  }
}

const readHeader = (text: string): Header => {
  const header = JSON.parse(text) as Header
  if (header.format !== 'luthier-backup') throw new Error('This is no backup of Luthier.')
  if (header.version !== VERSION)
    throw new Error(
      `The backup has the format ${header.version}, this Luthier reads ${VERSION}. Restore it with the Luthier that made it.`,
    )
  return header
}

const refuseUnlessEmpty = async ({ db }: Database, header: Header): Promise<void> => {
  const ours = await migrationNames()
  const unknown = header.migrations.find((name, at) => name !== ours[at])
  if (unknown !== undefined)
    throw new Error(
      `The backup was made by a newer Luthier: its database has seen the migration ${unknown}, which this one does not know.`,
    )
  const applied = await migrationsOf(db)
  if (!applied) return
  for (const { name } of await listTables(db)) {
    const rows = await countRows(db, name)
    if (rows > 0)
      throw new Error(
        `The database is not empty: there are ${rows} rows in ${name}. Restore into an empty one: another LUTHIER_HOME, or a new database in DATABASE_URL, before a server has been started on it.`,
      )
  }
  if (applied.length !== header.migrations.length)
    throw new Error(
      `The database has seen ${applied.length} migrations, that of the backup ${header.migrations.length}. Restore into a database that nothing of Luthier has touched yet.`,
    )
}

const damaged = () => new Error('The backup is damaged: its bytes are not those that were written.')
