// Where tests find models and data that are not in the repository. Missing ones skip a test with a sentence on a
// user's machine and fail it under CI=true.

import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** What a test needs from outside: its path, or why it is not there. */
export interface Outside {
  readonly path: string
  /** For `test.skipIf(...)`: true when the thing is missing and nobody insists on it. */
  readonly missing: boolean
  readonly reason: string
}

/** Something in the folder of shared data: `models/stories260k`, `data/banking77`. */
export function shared(name: string): Outside {
  const folders = process.env.LUTHIER_SHARED
    ? [process.env.LUTHIER_SHARED]
    : [join(root, '../shared'), join(root, '../../shared')]
  return find(folders, name, 'set LUTHIER_SHARED to the folder that holds it')
}

/** A pulled test model, `SmolLM2-135M-Instruct.Q4_1.gguf`: CI fetches it before the tests. */
export function testModel(name: string): Outside {
  const folders = process.env.LUTHIER_TEST_MODELS
    ? [process.env.LUTHIER_TEST_MODELS]
    : [join(homedir(), '.cache/luthier/test-models')]
  return find(folders, name, 'set LUTHIER_TEST_MODELS to the folder that holds it')
}

/** Something that CI installs outside the checkout and names by a variable. */
export function installed(variable: string, what: string): Outside {
  const path = process.env[variable]
  return find(path ? [path] : [], '', `set ${variable} to ${what}`)
}

function find(folders: string[], name: string, advice: string): Outside {
  const path = folders.map((folder) => join(folder, name)).find((path) => existsSync(path))
  const reason = name
    ? `${name} is not on this machine: ${advice}`
    : `Not on this machine: ${advice}`
  if (path) return { path, missing: false, reason: '' }
  if (process.env.CI === 'true') throw new Error(reason)
  console.warn(`skipped: ${reason}`)
  return { path: '', missing: true, reason }
}
