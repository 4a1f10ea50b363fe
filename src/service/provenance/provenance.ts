// Where models come from: statements, signed; lineage from a model to its files, and from a file or row to its models.

import { stat } from 'node:fs/promises'
import type { Certificate } from '../../engine/parity/parity.ts'
import type { Cursor } from '../cursor.ts'
import { findJob } from '../db/fine-tuning-jobs.ts'
import { findImport } from '../db/imports.ts'
import { type ChosenOfSearch, findMerge } from '../db/merges.ts'
import {
  type Ancestor,
  ancestorsOf,
  answersOf,
  contentsOfFile,
  descendantsOfFiles,
  deviceOfWork,
  type EvalOfModel,
  evalsOfModel,
  type KeptAnswer,
  settleSigningKey,
  trainingContents,
} from '../db/provenance.ts'
import { hashesOf } from '../models/export.ts'
import type { ModelRegistry } from '../models/registry.ts'
import { objectKey } from '../storage/object-store.ts'
import type { Stores } from '../storage/objects.ts'
import { digestOfRows, rowHashes } from './rows.ts'
import { newPrivateKey, type Sealed, type SigningKey, signingKey } from './sealed.ts'

/** What is signed of a model. Fields that nobody measured are null. */
export interface Statement {
  version: 1
  model: string
  created_at: string
  base: { model: string; files: Record<string, string> }
  /** Of the tuned model's own weights; null for a base model. */
  weights: { sha256: string; config_sha256: string } | null
  parents: string[]
  training: Training | null
  /** What merged its parents; null where it was tuned, or neither. */
  merge: Merging | null
  /** What came from outside; null where it was made here. */
  imported: Imported | null
  /** That it is served as it was trained; null where nobody has looked. */
  parity: Certificate | null
  /** Runs of evals on it that have ended by now. */
  evals: EvalOfModel[]
  software: { name: 'luthier'; version: string }
}

export interface Training {
  job: string
  method: unknown
  seed: number
  plan: unknown
  trained_tokens: number | null
  /** `cpu`, `cuda`, …: what it was trained on. */
  device: string | null
  training_file: DataFile
  validation_file: DataFile | null
}

export interface Merging {
  merge: string
  config: unknown
  /** What its search has chosen in place of the config's; null where nothing was searched. */
  chosen: ChosenOfSearch | null
}

export interface Imported {
  import: string
  kind: string | null
  imported_at: string
  /** As they came. */
  received: { filename: string; sha256: string; bytes: number; source: string }[]
}

export interface DataFile {
  id: string
  sha256: string
  rows: { count: number; sha256: string }
}

export interface Provenance {
  key(): Promise<SigningKey>
  /** The signed statement on a model; throws `modelNotFound` where the project has none of that name. */
  statement(project_id: string, model: string): Promise<Sealed<Statement>>
  /** The model and all it was made of. */
  lineage(project_id: string, model: string): Promise<Ancestor[]>
  /** All models that learned from a file, or from a row by its hash, directly or through others. */
  models(project_id: string, of: Learned): Promise<Ancestor[]>
  /** What those models have answered and was kept; one more than `limit`, where there are more. */
  answers(project_id: string, of: Learned & Cursor): Promise<KeptAnswer[]>
}

/** Something to learn from: a file, or a row by its hash, or a row of that file. */
export interface Learned {
  file?: string
  row_sha256?: string
}

export interface ProvenanceDeps {
  stores: Stores
  models: Pick<ModelRegistry, 'resolve' | 'retrieve'>
  version: string
}

export function createProvenance({ stores, models, version }: ProvenanceDeps): Provenance {
  const { db, store } = stores
  let key: Promise<SigningKey> | undefined
  const hashed = new Map<string, Promise<Record<string, string>>>()

  /** A base is read once, until it is another. */
  const hashesOfBase = async (path: string) => {
    const { mtimeMs, size } = await stat(path)
    const name = `${path} ${mtimeMs} ${size}`
    const found = hashed.get(name) ?? hashesOf(path)
    hashed.set(name, found)
    found.catch(() => hashed.delete(name))
    return found
  }

  const content = (project_id: string, sha256: string) => store.get(objectKey(project_id, sha256))

  const dataFile = async (project_id: string, id: string, sha256: string): Promise<DataFile> => ({
    id,
    sha256,
    rows: await digestOfRows(await content(project_id, sha256)),
  })

  const trainingOf = async (project_id: string, job_id: string): Promise<Training | null> => {
    const job = await findJob(db, project_id, job_id)
    if (!job) return null
    const { training_file, training_sha256, validation_file, validation_sha256 } = job
    return {
      job: job.id,
      method: job.method,
      seed: Number(job.seed),
      plan: job.plan,
      device: await deviceOfWork(db, job.id),
      trained_tokens: job.trained_tokens === null ? null : Number(job.trained_tokens),
      training_file: await dataFile(project_id, training_file, training_sha256),
      validation_file:
        validation_file !== null && validation_sha256 !== null
          ? await dataFile(project_id, validation_file, validation_sha256)
          : null,
    }
  }

  const mergingOf = async (project_id: string, id: string): Promise<Merging | null> => {
    const merge = await findMerge(db, project_id, id)
    return merge ? { merge: merge.id, config: merge.config, chosen: merge.chosen } : null
  }

  const importedOf = async (project_id: string, id: string): Promise<Imported | null> => {
    const found = await findImport(db, project_id, id)
    if (!found) return null
    const { kind, received, created_at } = found
    return { import: found.id, kind, imported_at: created_at.toISOString(), received }
  }

  const provenance: Provenance = {
    key() {
      key ??= settleSigningKey(db, newPrivateKey()).then(signingKey)
      key.catch(() => {
        key = undefined
      })
      return key
    },

    async statement(project_id, model) {
      const resolved = await models.resolve(project_id, model)
      const entry = await models.retrieve(project_id, model)
      const [itself] = await ancestorsOf(db, project_id, model)
      const { adapter, job_id, merge_id, import_id } = resolved
      const signer = await provenance.key()
      return signer.seal<Statement>({
        version: 1,
        model,
        created_at: entry.created_at.toISOString(),
        base: { model: resolved.root, files: await hashesOfBase(resolved.base_path) },
        weights: adapter ? { ...adapter } : null,
        parents: itself?.parents ?? (entry.parent === null ? [] : [entry.parent]),
        training: job_id === undefined ? null : await trainingOf(project_id, job_id),
        merge: merge_id === undefined ? null : await mergingOf(project_id, merge_id),
        imported: import_id === undefined ? null : await importedOf(project_id, import_id),
        parity: entry.parity,
        evals: await evalsOfModel(db, project_id, model),
        software: { name: 'luthier', version },
      })
    },

    async lineage(project_id, model) {
      await models.retrieve(project_id, model)
      return ancestorsOf(db, project_id, model)
    },

    async models(project_id, { file, row_sha256 }) {
      const contents =
        file === undefined
          ? await trainingContents(db, project_id)
          : await contentsOfFile(db, project_id, file)
      if (row_sha256 === undefined) return descendantsOfFiles(db, project_id, contents)
      const wanted = row_sha256.toLowerCase()
      const having: string[] = []
      for (const sha256 of contents)
        for await (const row of rowHashes(await content(project_id, sha256)))
          if (row === wanted) {
            having.push(sha256)
            break
          }
      return descendantsOfFiles(db, project_id, having)
    },

    async answers(project_id, { after, limit, ...of }) {
      const models = (await provenance.models(project_id, of)).map(({ model }) => model)
      return answersOf(db, { project_id, models, after, limit: limit + 1 })
    },
  }
  return provenance
}
