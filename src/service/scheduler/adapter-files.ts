// Adapters of tuned models as files on this machine, where a thread can map them: one folder per adapter,
// made once from stored objects. Knows no tensor.

import { createWriteStream } from 'node:fs'
import { access, mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { ResolvedModel, StoredAdapter } from '../models/model.ts'

export interface AdapterFilesOptions {
  /** Holds nothing that cannot be made again. */
  folder: string
  /** The bytes of a stored object, their hash checked while they are read. */
  read: (
    project_id: string,
    sha256: string,
  ) => AsyncIterable<Uint8Array> | Promise<AsyncIterable<Uint8Array>>
}

/** Gives the path of a tuned model's `adapter_model.safetensors`, `adapter_config.json` beside it. */
export type AdapterFile = (model: ResolvedModel) => Promise<string>

export interface AdapterFiles extends AdapterFile {
  /** Nobody will ask for it soon; who has it open keeps it. */
  forget(adapter: StoredAdapter): Promise<void>
}

/** Several requests for one adapter make it once; several processes may share the folder. */
export function adapterFiles({ folder, read }: AdapterFilesOptions): AdapterFiles {
  const making = new Map<string, Promise<void>>()
  const nameOf = ({ sha256, config_sha256 }: StoredAdapter) => `${sha256}-${config_sha256}`

  async function make(place: string, project_id: string, adapter: StoredAdapter) {
    await mkdir(folder, { recursive: true })
    const temporary = await mkdtemp(join(folder, '.making-'))
    try {
      const files = [
        ['adapter_model.safetensors', adapter.sha256],
        ['adapter_config.json', adapter.config_sha256],
      ] as const
      for (const [name, sha256] of files)
        await pipeline(
          await read(project_id, sha256),
          createWriteStream(join(temporary, name), { flush: true }),
        )
      // Only whole folders ever have the final name.
      await rename(temporary, place).catch(async (error) => {
        if (!(await exists(place))) throw error
      })
    } finally {
      await rm(temporary, { recursive: true, force: true })
    }
  }

  const file: AdapterFile = async ({ id, adapter, project_id }) => {
    if (!adapter) throw new Error(`${id} has no adapter.`)
    const name = nameOf(adapter)
    const place = join(folder, name)
    if (!(await exists(place))) {
      const made =
        making.get(name) ?? make(place, project_id, adapter).finally(() => making.delete(name))
      making.set(name, made)
      await made
    }
    return join(place, 'adapter_model.safetensors')
  }
  return Object.assign(file, {
    forget: (adapter: StoredAdapter) =>
      rm(join(folder, nameOf(adapter)), { recursive: true, force: true }),
  })
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  )
