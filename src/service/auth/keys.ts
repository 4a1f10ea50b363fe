// What an API key is: random, shown once, kept as its SHA-256. Finds the caller of a key.

import { createHash, timingSafeEqual } from 'node:crypto'
import { invalidRequest, notFound } from '../../errors.ts'
import {
  ensureOrganization,
  findKeyByHash,
  type ListedKey,
  listKeys,
  revokeKey,
  revokeOtherKeysOfName,
  type Scope,
  scopes,
  upsertKey,
} from '../db/keys.ts'
import { type Db, type Pool, transaction } from '../db/pool.ts'
import { newId, randomLetters } from '../ids.ts'

export { type ListedKey, listKeys, type Scope, scopes } from '../db/keys.ts'

/** Who asks: every request under /v1 has one, and every query takes its project. */
export interface Caller {
  readonly key_id: string
  readonly project_id: string
  /** Its project is archived: nothing is answered. */
  readonly project_archived: boolean
  readonly organization_id: string
  /** Stands in the names of tuned models. */
  readonly organization_slug: string
  readonly scope: Scope
}

const BOOTSTRAP = 'bootstrap'
const SLUG = 'luthier'

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

/** Ends a key of the organization for good. Throws where there is none that lives. */
export const endKey = async (db: Db, organization_id: string, id: string): Promise<ListedKey> => {
  const found = (await listKeys(db, organization_id)).find((key) => key.id === id)
  if (!found) throw notFound(`There is no key with the id ${id}.`)
  if (!(await revokeKey(db, found.project_id, id)))
    throw invalidRequest(`The key ${id} was revoked before.`)
  return found
}

/** The organization of this installation and its default project, made where they are missing. */
export const ensureFirstProject = (
  db: Pool,
): Promise<{ organization_id: string; project_id: string }> =>
  transaction(db, (tx) =>
    ensureOrganization(tx, { id: newId('org-'), slug: SLUG, project_id: newId('proj_') }),
  )

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
    const { project_id } = await ensureOrganization(tx, {
      id: newId('org-'),
      slug: SLUG,
      project_id: newId('proj_'),
    })
    const bootstrap = { project_id, name: BOOTSTRAP, hash: hashKey(key), scope: 'admin' as const }
    await upsertKey(tx, { ...bootstrap, id: newId('key_') })
    if (options.replacesOthers) await revokeOtherKeysOfName(tx, bootstrap)
    const caller = await findCaller(tx, key)
    if (!caller) throw new Error('The bootstrap key cannot be found after it was written.')
    return caller
  })
