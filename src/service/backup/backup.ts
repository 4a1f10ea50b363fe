// A backup: database and objects of one moment as a stream, while the server goes on.

import { holdObjects } from '../db/objects.ts'
import { beginSnapshot, listTables, migrationsOf, readRows } from '../db/snapshot.ts'
import { objectKey } from '../storage/object-store.ts'
import type { Stores } from '../storage/objects.ts'
import {
  createSum,
  END,
  type End,
  HEADER,
  type Header,
  objectEntry,
  rowsEntry,
  type Tally,
  VERSION,
} from './format.ts'
import { tarEnd, tarHeader, tarPadding } from './tar.ts'

/**
 * Yields the bytes of a backup file. Rows are those of one snapshot; the objects that they name are not removed
 * before the end, for whoever wants to remove one leaves it to the sweeper meanwhile.
 */
export async function* backup(
  { db, store }: Stores,
  now: Date,
  tally: Tally = { rows: 0, objects: 0, bytes: 0 },
): AsyncGenerator<Buffer> {
  const client = await db.connect()
  const sum = createSum()
  const small = function* (name: string, content: string) {
    const bytes = Buffer.from(content)
    sum.entry(name, bytes.length)
    sum.bytes(bytes)
    yield Buffer.concat([tarHeader(name, bytes.length), bytes, tarPadding(bytes.length)])
  }
  try {
    await holdObjects(client)
    await beginSnapshot(client)
    const migrations = await migrationsOf(client)
    if (!migrations) throw new Error('There is nothing of Luthier in this database.')
    const tables = await listTables(client)
    const header: Header = {
      format: 'luthier-backup',
      version: VERSION,
      created_at: now.toISOString(),
      migrations,
      tables,
    }
    yield* small(HEADER, JSON.stringify(header, undefined, 2))

    for (const table of tables) {
      let n = 0
      for await (const { rows, json } of readRows(client, table)) {
        tally.rows += rows
        yield* small(rowsEntry(table.name, ++n), json)
      }
    }

    let after: { project_id: string; sha256: string } | undefined
    do {
      const { rows: page } = await client.query<{
        project_id: string
        sha256: string
        bytes: number
      }>(
        `select project_id, sha256, bytes from objects
          where $1::text is null or (project_id, sha256) > ($1, $2)
          order by project_id, sha256 limit 200`,
        [after?.project_id ?? null, after?.sha256 ?? null],
      )
      for (const { project_id, sha256, bytes } of page) {
        const key = objectKey(project_id, sha256)
        const name = objectEntry(key)
        sum.entry(name, bytes)
        yield tarHeader(name, bytes)
        let left = bytes
        for await (const chunk of (await store.get(key)) as AsyncIterable<Buffer>) {
          left -= chunk.length
          sum.bytes(chunk)
          yield chunk
        }
        if (left !== 0) throw new Error(`The object ${key} has not the ${bytes} bytes of its row.`)
        yield tarPadding(bytes)
        tally.objects++
        tally.bytes += bytes
      }
      after = page.at(-1)
    } while (after)

    const end: End = { ...tally, sha256: sum.digest() }
    yield* small(END, JSON.stringify(end))
    yield tarEnd()
  } finally {
    // Its session ends with it: the snapshot, and the hold on the objects.
    client.release(true)
  }
}
