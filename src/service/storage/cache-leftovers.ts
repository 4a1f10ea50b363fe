// What a kill leaves in the folders of caches: files and folders that were being made and have no final name.

import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { unlessMissing } from './temporary-names.ts'

/** As the weights' and the adapters' caches name what they are making. */
const isUnfinished = (name: string) => name.endsWith('.tmp') || name.startsWith('.making-')

/** Removes what was not written to for so long; what is being made is written to all the time. */
export const clearLeftovers = async (
  folders: readonly string[],
  age_ms: number,
): Promise<string[]> => {
  const removed: string[] = []
  for (const folder of folders)
    for (const name of (await readdir(folder).catch(unlessMissing)) ?? []) {
      if (!isUnfinished(name)) continue
      const path = join(folder, name)
      const found = await stat(path).catch(unlessMissing)
      if (!found || Date.now() - found.mtimeMs < age_ms) continue
      await rm(path, { recursive: true, force: true })
      removed.push(path)
    }
  return removed
}
