// Brings a base model into the folder of base models: fetched aside, looked at, then put in place by one rename. An
// adapter goes to whoever keeps adapters.

import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ADAPTER_CONFIG } from '../../engine/import/request.ts'
import { invalidRequest } from '../../errors.ts'
import { scanBaseModels } from './base-models.ts'
import { type Fetched, type FetchProgress, type Hub, parseSource } from './sources.ts'

export interface PullOptions {
  /** The folder of base models. */
  folder: string
  hub: Hub
  /** The name to store it under instead of its own. */
  as?: string | undefined
  /** Throws what is wrong with the model at this path, before it has a name. */
  look?: (path: string) => Promise<unknown>
  /** Takes an adapter's folder in, and gives the name of the model that it becomes. */
  adopt?: (fetched: Fetched) => Promise<string>
}

export type PullEvent =
  | FetchProgress
  | { type: 'pulled'; id: string; path: string }
  /** It was an adapter, and is a model of a project now. */
  | { type: 'adopted'; id: string }

const ASIDE = '.pull-'
const STALE_MS = 24 * 3600 * 1000

/** Fetches `source` and stores it under its own name, or under `as`. A name that is taken is an error. */
export async function* pull(
  source: string,
  { folder, hub, as, look, adopt }: PullOptions,
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
    if (isAdapter(fetched)) {
      if (!adopt || as !== undefined)
        throw invalidRequest(
          `${source} is an adapter: it is named after its base, which no --as changes.`,
        )
      yield { type: 'adopted', id: await adopt(fetched) }
      return
    }
    await look?.(fetched.path)
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

const isAdapter = ({ path }: Fetched) => existsSync(join(path, ADAPTER_CONFIG))

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
