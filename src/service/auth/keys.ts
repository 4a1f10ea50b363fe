// What an API key is: random, shown once, kept as its SHA-256. Finds the caller of a key.

import { createHash, timingSafeEqual } from 'node:crypto'
import {
  ensureOrganization,
  findKeyByHash,
  revokeOtherKeysOfName,
  type Scope,
  scopes,
  upsertKey,
} from '../db/keys.ts'
import { type Db, type Pool, transaction } from '../db/pool.ts'
import { newId, randomLetters } from '../ids.ts'

export type { Scope } from '../db/keys.ts'

/** Who asks: every request under /v1 has one, and every query takes its project. */
export interface Caller {
  readonly key_id: string
  readonly project_id: string
  readonly organization_id: string
  /** Stands in the names of tuned models. */
  readonly organization_slug: string
  readonly scope: Scope
}

const BOOTSTRAP = 'bootstrap'

export const hashKey = (key: string): Buffer => createHash('sha256').update(key).digest()

/** A new secret key. */
export const newKey = (): string => `sk-luthier-${randomLetters(40)}`

/** Whether who has `scope` may do what needs `needed`. */
export const allows = (scope: Scope, needed: Scope): boolean =>
  scopes.indexOf(scope) >= scopes.indexOf(needed)

/** The caller that holds this key, if it is one of ours and lives. */
export const findCaller = async (db: Db, key: string): Promise<Caller | undefined> => {
  const hash = hashKey(key)
  const record = await findKeyByHash(db, hash)
  if (!record || !timingSafeEqual(record.hash, hash)) return undefined
  const { hash: _, ...caller } = record
  return caller
}

/** Makes a key in a project; `key` is told here and never again. */
export const createKey = async (
  db: Db,
  wanted: { project_id: string; name: string; scope: Scope },
): Promise<{ id: string; key: string }> => {
  const id = newId('key_')
  const key = newKey()
  await upsertKey(db, { ...wanted, id, hash: hashKey(key) })
  return { id, key }
}

/**
 * Makes the first organization and project, and `key` their admin key. A key from the settings replaces the
 * one that stood there before: whoever changes it wants the old one to end.
 */
export const ensureBootstrapKey = (
  db: Pool,
  key: string,
  options: { replacesOthers: boolean },
): Promise<Caller> =>
  transaction(db, async (tx) => {
    const organization_slug = 'luthier'
    const { project_id } = await ensureOrganization(tx, {
      id: newId('org-'),
      slug: organization_slug,
      project_id: newId('proj_'),
    })
    const bootstrap = { project_id, name: BOOTSTRAP, hash: hashKey(key), scope: 'admin' as const }
    await upsertKey(tx, { ...bootstrap, id: newId('key_') })
    if (options.replacesOthers) await revokeOtherKeysOfName(tx, bootstrap)
    const caller = await findCaller(tx, key)
    if (!caller) throw new Error('The bootstrap key cannot be found after it was written.')
    return caller
  })
