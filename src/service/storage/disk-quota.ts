// How many bytes the objects of one project may take. What jobs write counts, but only what clients send is refused.

import { ApiError } from '../../errors.ts'
import { bytesOfProject, lockDisk } from '../db/objects.ts'
import type { Db, PoolClient } from '../db/pool.ts'

export interface DiskQuota {
  /** Passes the bytes on and counts them with all that comes in meanwhile; throws at the first that is too many. */
  watch(project_id: string, body: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array>
  /** The last word, in the transaction that keeps what was received: what came in at once is kept one by one. */
  confirm(tx: PoolClient, project_id: string): Promise<void>
  /** Throws when the project has no room for so many more bytes. */
  admit(project_id: string, bytes: number): Promise<void>
}

const unlimited: DiskQuota = {
  watch: (_, body) => body,
  confirm: async () => {},
  admit: async () => {},
}

/** Without a limit nothing is counted. */
export const createDiskQuota = (db: Db, limit: number | undefined): DiskQuota => {
  if (limit === undefined) return unlimited
  const arriving = new Map<string, number>()
  const arrive = (project_id: string, bytes: number) => {
    const total = (arriving.get(project_id) ?? 0) + bytes
    if (total > 0) arriving.set(project_id, total)
    else arriving.delete(project_id)
    return total
  }
  return {
    async *watch(project_id, body) {
      const used = await bytesOfProject(db, project_id)
      let own = 0
      try {
        for await (const chunk of body) {
          own += chunk.byteLength
          if (used + arrive(project_id, chunk.byteLength) > limit) throw full(limit)
          yield chunk
        }
      } finally {
        arrive(project_id, -own)
      }
    },
    confirm: async (tx, project_id) => {
      await lockDisk(tx, project_id)
      if ((await bytesOfProject(tx, project_id)) > limit) throw full(limit)
    },
    admit: async (project_id, bytes) => {
      if ((await bytesOfProject(db, project_id)) + bytes > limit) throw full(limit)
    },
  }
}

const full = (limit: number) =>
  new ApiError(
    429,
    `The project has no room for this: its files, models and uploads may take ${limit} bytes. Delete what is not needed any more.`,
    {
      type: 'insufficient_quota',
      code: 'insufficient_quota',
      // Waiting alone makes no room.
      headers: { 'x-should-retry': 'false' },
    },
  )
