// Files of this machine on their way to become objects.

import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { isDiskFull, noRoom } from '../../errors.ts'
import type { ModelFile } from '../db/models.ts'
import type { ObjectStore, Staged } from '../storage/object-store.ts'
import { patiently } from '../work/patience.ts'

export type StagedFile = Staged & { readonly path: string }

export interface StagedFiles {
  readonly staged: readonly StagedFile[]
  readonly files: readonly ModelFile[]
}

/** Stages all of them, or leaves nothing; a full disk is told as `full`. */
export async function stageFiles(
  store: ObjectStore,
  { folder, paths, full }: { folder: string; paths: readonly string[]; full: string },
  signal?: AbortSignal,
): Promise<StagedFiles> {
  const staged: StagedFile[] = []
  const stage = (path: string) =>
    patiently(() =>
      store
        .stage(createReadStream(join(folder, path), { highWaterMark: 2 ** 20 }))
        .catch((error: unknown) => {
          throw isDiskFull(error) ? noRoom(full) : error
        }),
    )
  try {
    for (const path of paths) {
      signal?.throwIfAborted()
      staged.push({ ...(await stage(path)), path })
    }
  } catch (error) {
    for (const one of staged) await one.discard()
    throw error
  }
  return { staged, files: staged.map(({ path, sha256, bytes }) => ({ path, sha256, bytes })) }
}
