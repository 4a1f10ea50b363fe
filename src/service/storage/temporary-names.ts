// Names of files that are being written: they tell whose they are, so that what the dead left can be cleared.

import { randomUUID } from 'node:crypto'
import { readdir, rm, stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'

const STALE_MS = 24 * 60 * 60 * 1000

/** A new name that carries this process. */
export const ownName = (): string => `${hostname()}.${process.pid}.${randomUUID()}`

/** Removes what a process of this machine wrote that is gone, and what any wrote that long ago. */
export const clearStale = async (folder: string, age_ms = STALE_MS): Promise<void> => {
  for (const name of (await readdir(folder).catch(unlessMissing)) ?? []) {
    const path = join(folder, name)
    const pid = Number(name.split('.').at(-2))
    const isOfTheDead = name.startsWith(`${hostname()}.`) && pid !== process.pid && !isAlive(pid)
    const found = await stat(path).catch(unlessMissing)
    if (isOfTheDead || (found && Date.now() - found.mtimeMs > age_ms))
      await rm(path, { recursive: true, force: true })
  }
}

export const unlessMissing = (error: NodeJS.ErrnoException): undefined => {
  if (error.code !== 'ENOENT') throw error
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
