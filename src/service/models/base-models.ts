// The base models on disk: one folder in, names and paths out. Reads no tensor.

import { readdir, stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { invalidRequest } from '../../errors.ts'

export interface BaseModel {
  /** The folder's name, or the .gguf file's name without its ending. */
  id: string
  /** Absolute path of the folder or file. */
  path: string
  created_at: Date
}

/** Every sub-folder in Hugging Face layout and every .gguf file; two of one id are an error naming both. */
export async function scanBaseModels(folder: string): Promise<Map<string, BaseModel>> {
  const found = new Map<string, BaseModel>()
  for (const name of (await entries(folder)).sort()) {
    const model = await read(join(folder, name), name)
    if (!model) continue
    const other = found.get(model.id)
    if (other)
      throw new Error(
        `Two base models are called "${model.id}": ${other.path} and ${model.path}. Rename one of them.`,
      )
    found.set(model.id, model)
  }
  return found
}

/** The path of the base model called `name` in `folder`; a path of a model is taken as it is. */
export async function locateBaseModel(folder: string, name: string): Promise<string> {
  const models = await scanBaseModels(folder)
  const model = models.get(name) ?? (await read(resolve(name), basename(name)))
  if (model) return model.path
  const known = [...models.keys()].join(', ') || 'none yet'
  throw invalidRequest(
    `"${name}" is neither a base model in ${folder} (${known}) nor a path of one.`,
  )
}

async function read(path: string, name: string): Promise<BaseModel | undefined> {
  if (name.startsWith('.')) return undefined
  if (name.endsWith('.gguf')) {
    const file = await statOrNone(path)
    if (!file?.isFile()) return undefined
    return { id: name.slice(0, -'.gguf'.length), path, created_at: file.mtime }
  }
  const config = await statOrNone(join(path, 'config.json'))
  return config?.isFile() ? { id: name, path, created_at: config.mtime } : undefined
}

async function entries(folder: string): Promise<string[]> {
  try {
    return await readdir(folder)
  } catch (error) {
    if (isMissing(error)) return []
    throw new Error(`The folder of base models cannot be read: ${folder}`, { cause: error })
  }
}

// Links are followed; a link into nowhere, or a file that is just being replaced, is no model.
async function statOrNone(path: string) {
  try {
    return await stat(path)
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

const isMissing = (error: unknown) =>
  error instanceof Error &&
  'code' in error &&
  (error.code === 'ENOENT' || error.code === 'ENOTDIR' || error.code === 'ELOOP')
