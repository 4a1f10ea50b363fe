// The first key: from the settings, or made once and kept in a file that only its owner reads.

import { randomUUID } from 'node:crypto'
import { link, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { newKey } from './keys.ts'

export interface BootstrapKey {
  readonly key: string
  /** Made just now: the one moment to show it. */
  readonly isNew: boolean
  readonly path: string
}

/** The key in `LUTHIER_HOME/api-key`; processes that start at once agree on one. */
export const readOrMakeKey = async (home: string): Promise<BootstrapKey> => {
  const path = join(home, 'api-key')
  const kept = await readKey(path)
  if (kept !== undefined) return { key: kept, isNew: false, path }
  const key = newKey()
  const making = `${path}.${randomUUID()}`
  await writeFile(making, `${key}\n`, { mode: 0o600, flag: 'wx', flush: true })
  try {
    await link(making, path)
    return { key, isNew: true, path }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return { key: (await readKey(path)) ?? key, isNew: false, path }
  } finally {
    await rm(making, { force: true })
  }
}

const readKey = async (path: string): Promise<string | undefined> => {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  if (text !== undefined && text.trim() === '')
    throw new Error(`${path} is empty. Delete it, and a new key is made.`)
  return text?.trim()
}
