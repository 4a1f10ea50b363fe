// Brings a base model into the folder of base models: fetched aside, then put in place by one rename.

import { mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { invalidRequest } from '../../errors.ts'
import { scanBaseModels } from './base-models.ts'
import { type FetchProgress, type Hub, parseSource } from './sources.ts'

export interface PullOptions {
  /** The folder of base models. */
  folder: string
  hub: Hub
  /** The name to store it under instead of its own. */
  as?: string | undefined
}

export type PullEvent = FetchProgress | { type: 'pulled'; id: string; path: string }

const ASIDE = '.pull-'
const STALE_MS = 24 * 3600 * 1000

/** Fetches `source` and stores it under its own name, or under `as`. A name that is taken is an error. */
export async function* pull(
  source: string,
  { folder, hub, as }: PullOptions,
): AsyncGenerator<PullEvent, void, undefined> {
  if (as !== undefined) checkName(as)
  const fetch = parseSource(source, hub)
  await mkdir(folder, { recursive: true })
  await sweep(folder)
  // Beside its later place, so that the rename stays within one file system.
  const aside = await mkdtemp(join(folder, ASIDE))
  try {
    if (as !== undefined) await checkFree(folder, as)
    const inner = join(aside, 'model')
    await mkdir(inner)
    const fetched = yield* fetch(inner)
    const id = as ?? fetched.name
    checkName(id)
    await checkFree(folder, id)
    const path = join(folder, fetched.path.endsWith('.gguf') ? `${id}.gguf` : id)
    await rename(fetched.path, path)
    yield { type: 'pulled', id, path }
  } finally {
    await rm(aside, { recursive: true, force: true })
  }
}

function checkName(name: string) {
  if (/^[\p{L}\p{N}][\p{L}\p{N}._-]*$/u.test(name) && !name.endsWith('.gguf')) return
  throw invalidRequest(
    `"${name}" cannot be a model's name: letters, digits, dots, dashes and underscores only. Choose one with --as NAME.`,
  )
}

async function checkFree(folder: string, id: string) {
  const taken = (await scanBaseModels(folder)).get(id)
  if (taken)
    throw invalidRequest(
      `A base model named "${id}" is there already: ${taken.path}. Choose another name with --as NAME.`,
    )
}

// What a killed pull left behind.
async function sweep(folder: string) {
  for (const name of await readdir(folder)) {
    if (!name.startsWith(ASIDE)) continue
    const left = await stat(join(folder, name)).catch(() => undefined)
    if (left && Date.now() - left.mtimeMs > STALE_MS)
      await rm(join(folder, name), { recursive: true, force: true })
  }
}
