// Models with files of their own as folders on this machine, where a thread can map them: made once from stored
// objects, or put there by whoever made them. Knows no tensor.

import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { access, copyFile, link, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { ModelFile } from '../db/models.ts'
import type { LocalFile } from '../storage/object-store.ts'

export interface ModelFoldersOptions {
  /** Holds nothing that cannot be made again. */
  folder: string
  /** An object as a file of this machine, its hash checked. */
  open: (project_id: string, sha256: string) => Promise<LocalFile>
}

/** What lies in a model's folder. */
export type FileNames = readonly Pick<ModelFile, 'path' | 'sha256'>[]

/** Goes with all that is in it. */
export interface LentFolder extends AsyncDisposable {
  readonly path: string
  /** For what is converted of it. */
  readonly cache: string
}

export interface ModelFolders {
  /** The folder, made where it is not there. */
  of(project_id: string, files: FileNames): Promise<string>
  /** Where a merge may work: it lasts until it is put in place, or a day. */
  aside(id: string): string
  /** The files for as long as this is held, beside a place for what is converted of them: no model names them. */
  lend(id: string, project_id: string, files: FileNames): Promise<LentFolder>
  /** A folder that was made aside becomes the one that `of` gives. */
  put(aside: string, project_id: string, files: FileNames): Promise<string>
  /** The model is no more; what has it open keeps it. */
  remove(project_id: string, files: FileNames): Promise<void>
}

export function modelFolders({ folder, open }: ModelFoldersOptions): ModelFolders {
  const making = new Map<string, Promise<void>>()
  const placeOf = (project_id: string, files: FileNames) => {
    const hash = createHash('sha256').update(project_id)
    for (const { path, sha256 } of files.toSorted((a, b) => (a.path < b.path ? -1 : 1)))
      hash.update(`\n${sha256} ${path}`)
    return join(folder, hash.digest('hex'))
  }

  async function make(place: string, project_id: string, files: FileNames) {
    await mkdir(folder, { recursive: true })
    const temporary = await mkdtemp(join(folder, '.making-'))
    try {
      await fill(temporary, project_id, files)
      await move(temporary, place)
    } finally {
      await rm(temporary, { recursive: true, force: true })
    }
  }

  async function fill(place: string, project_id: string, files: FileNames) {
    for (const { path, sha256 } of files) {
      await using object = await open(project_id, sha256)
      // The same bytes under another name, where that can be.
      await link(object.path, join(place, path)).catch(() =>
        copyFile(object.path, join(place, path), constants.COPYFILE_FICLONE),
      )
    }
  }

  const aside = (id: string) => join(folder, `.making-${id}`)

  return {
    async of(project_id, files) {
      const place = placeOf(project_id, files)
      if (await exists(place)) return place
      const made =
        making.get(place) ?? make(place, project_id, files).finally(() => making.delete(place))
      making.set(place, made)
      await made
      return place
    },
    aside,
    async lend(id, project_id, files) {
      await mkdir(folder, { recursive: true })
      // What an interruption has left goes; who was interrupted and lives removes its own alone.
      for (const name of await readdir(folder))
        if (name.startsWith(`.making-${id}-`))
          await rm(join(folder, name), { recursive: true, force: true })
      const place = await mkdtemp(`${aside(id)}-`)
      const giveBack = () => rm(place, { recursive: true, force: true })
      const lent = { path: join(place, 'model'), cache: join(place, 'weights') }
      try {
        for (const path of Object.values(lent)) await mkdir(path, { recursive: true })
        await fill(lent.path, project_id, files)
      } catch (error) {
        await giveBack()
        throw error
      }
      return { ...lent, [Symbol.asyncDispose]: giveBack }
    },
    async put(aside, project_id, files) {
      const place = placeOf(project_id, files)
      await move(aside, place)
      return place
    },
    remove: (project_id, files) => rm(placeOf(project_id, files), { recursive: true, force: true }),
  }
}

/** Only whole folders ever have the final name; one that is there already is the same. */
const move = (from: string, to: string) =>
  rename(from, to).catch(async (error) => {
    if (!(await exists(to))) throw error
    await rm(from, { recursive: true, force: true })
  })

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  )
