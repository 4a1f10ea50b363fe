// A job as it is asked for, made sure of: what it names exists and fits together. Creates nothing.

import { text } from 'node:stream/consumers'
import { METHOD_NAMES, type MethodName } from '../../engine/train/methods/index.ts'
import type { LoraOptions } from '../../engine/train/request.ts'
import { parseAdapterConfig } from '../../engine/weights/adapter.ts'
import { invalidRequest } from '../../errors.ts'
import type { PinnedEval } from '../db/evals.ts'
import { type FileRecord, findFile } from '../db/files.ts'
import { findJob, type InitialAdapter } from '../db/fine-tuning-jobs.ts'
import type { Db } from '../db/pool.ts'
import type { Purpose } from '../files/files.ts'
import type { ModelRegistry } from '../models/registry.ts'
import { objectKey } from '../storage/object-store.ts'
import type { Stores } from '../storage/objects.ts'
import { resolveCheckpointEval } from './checkpoint-evals.ts'
import type { JobExtension } from './extension.ts'
import type { FileParam } from './file-errors.ts'
import {
  hyperparametersOf,
  type JobMethod,
  mergeHyperparameters,
  type SentHyperparameters,
} from './hyperparameters.ts'

/** A request that fits the schema; what the schema cannot know is decided here. */
export interface CreateJob {
  model: string
  training_file: string
  validation_file?: string | null
  hyperparameters?: SentHyperparameters
  suffix?: string | null
  seed?: number | null
  method?: { type: string } & { [name in MethodName]?: { hyperparameters?: SentHyperparameters } }
  integrations?: readonly unknown[] | null
  metadata?: Record<string, string> | null
  luthier?: JobExtension | null
}

/** What the request names, found. */
export interface Requested {
  method: JobMethod
  root: string
  /** Null: a fresh adapter. */
  initial: InitialAdapter | null
  training: FileRecord
  validation: FileRecord | undefined
  reference: FileRecord | undefined
  luthier: JobExtension | null
  /** Null: none is run at its checkpoints. */
  eval: (PinnedEval & { items_sha256: string }) | null
}

export interface RequestedDeps {
  stores: Stores
  models: Pick<ModelRegistry, 'resolveRoot' | 'resolve'>
  /** How many devices work on jobs, where that is known. */
  devices?: number | undefined
}

/** Finds what a request names. Throws what its sender can mend. */
export async function resolveRequest(
  deps: RequestedDeps,
  project_id: string,
  request: CreateJob,
): Promise<Requested> {
  const method = methodOfRequest(request)
  refuseUnsupported(request)
  const start = await resolveStart(deps, project_id, request.model)
  const { db } = deps.stores
  const file = (id: string | null | undefined, param: FileField) =>
    id == null ? undefined : resolveFile(db, project_id, id, param)
  const training = await resolveFile(db, project_id, request.training_file, 'training_file')
  const validation = await file(request.validation_file, 'validation_file')
  const luthier = request.luthier ?? null
  if (validation && luthier?.data?.validation_split !== undefined)
    throw invalidRequest(
      "A job has a 'validation_file' or a 'luthier.data.validation_split', not both.",
      { param: 'luthier.data.validation_split', code: 'invalid_value' },
    )
  const reference = await file(luthier?.data?.reference_file, 'luthier.data.reference_file')
  if (start.initial) refuseOtherLora(start.initial, method)
  refuseTooManyDevices(deps, method)
  const isMeasured = validation !== undefined || luthier?.data?.validation_split !== undefined
  refuseBlindStopping(method, luthier, isMeasured)
  const id = luthier?.publish?.eval
  const evaluated =
    id === undefined ? null : await resolveCheckpointEval(db, { project_id, id, method })
  return { method, ...start, training, validation, reference, luthier, eval: evaluated }
}

/** What a job starts from: a base model, or a tuned model or checkpoint over one. */
async function resolveStart(
  { stores, models }: RequestedDeps,
  project_id: string,
  name: string,
): Promise<Pick<Requested, 'root' | 'initial'>> {
  const base = await models.resolveRoot(project_id, name)
  if (base) return { root: base.id, initial: null }
  const { root, adapter, job_id } = await models.resolve(project_id, name)
  if (!adapter) throw new Error(`${name} is neither a model of its own nor an adapter.`)
  const lora =
    job_id === undefined
      ? await loraOf(stores, project_id, adapter.config_sha256)
      : (await findJob(stores.db, project_id, job_id))?.plan?.lora
  if (!lora) throw new Error(`Nothing is known of how ${name} was tuned.`)
  return { root, initial: { model: name, ...adapter, lora } }
}

/** Of an adapter that no job has made: as its own config says. */
async function loraOf(
  { store }: Stores,
  project_id: string,
  config_sha256: string,
): Promise<LoraOptions> {
  const json = await text(await store.get(objectKey(project_id, config_sha256)))
  const { r, lora_alpha, target_modules, use_rslora, use_dora } = parseAdapterConfig(json)
  return {
    rank: r,
    alpha: lora_alpha,
    target_modules: [...target_modules],
    ...(use_rslora && { use_rslora }),
    ...(use_dora && { use_dora }),
  }
}

type FileField = FileParam | typeof REFERENCE_FILE
const REFERENCE_FILE = 'luthier.data.reference_file'

/** Files of these purposes may be named. */
const PURPOSES = {
  training_file: ['fine-tune'],
  validation_file: ['fine-tune'],
  [REFERENCE_FILE]: ['fine-tune', 'user_data', 'evals'],
} as const satisfies Record<FileField, readonly Purpose[]>

async function resolveFile(
  db: Db,
  project_id: string,
  id: string,
  param: FileField,
): Promise<FileRecord> {
  const file = await findFile(db, project_id, id)
  const field = param.split('.').at(-1)!
  const name = field.replace('_', ' ')
  const where = { param, code: `invalid_${field}` }
  if (!file) throw invalidRequest(`The ${name} \`${id}\` does not exist.`, where)
  const purposes: readonly string[] = PURPOSES[param]
  if (!purposes.includes(file.purpose))
    throw invalidRequest(
      `The ${name} \`${id}\` has the purpose '${file.purpose}', expected ${purposes.map((each) => `'${each}'`).join(' or ')}.`,
      where,
    )
  return file
}

function refuseTooManyDevices({ devices: known }: RequestedDeps, method: JobMethod): void {
  const devices = hyperparametersOf(method).data_parallel ?? 1
  if (known !== undefined && devices > known)
    throw invalidRequest(`The job asks for ${devices} devices, and this server has ${known}.`, {
      param: `method.${method.type}.hyperparameters.data_parallel`,
      code: 'invalid_value',
    })
}

/** Who would stop in time, or publish the best, must have something to measure it by. */
function refuseBlindStopping(
  method: JobMethod,
  luthier: JobExtension | null,
  isMeasured: boolean,
): void {
  const { early_stopping } = hyperparametersOf(method)
  const param = `method.${method.type}.hyperparameters.early_stopping`
  const hasEval = luthier?.publish?.eval !== undefined
  const byScore = early_stopping?.metric === 'eval_score'
  if (byScore && !hasEval)
    throw invalidRequest(
      "Early stopping by 'eval_score' needs an eval: send 'luthier.publish.eval'.",
      {
        param: `${param}.metric`,
        code: 'invalid_value',
      },
    )
  const needs =
    "needs rows to measure by: send a 'validation_file' or 'luthier.data.validation_split'."
  if (early_stopping && !byScore && !isMeasured)
    throw invalidRequest(`Early stopping ${needs}`, { param, code: 'invalid_value' })
  if (luthier?.publish?.checkpoint === 'best' && !isMeasured && !hasEval)
    throw invalidRequest(`Publishing the best checkpoint ${needs}`, {
      param: 'luthier.publish.checkpoint',
      code: 'invalid_value',
    })
}

const METADATA_KEY = 64

/** An adapter goes on as it is; another shape would need the adapter merged into its base first. */
function refuseOtherLora({ model, lora }: InitialAdapter, method: JobMethod): void {
  const sent = hyperparametersOf(method).lora ?? {}
  const wished = { ...sent, rank: sent.rank === 'auto' ? undefined : sent.rank }
  const kept = { ...lora, use_rslora: lora.use_rslora ?? false, use_dora: lora.use_dora ?? false }
  for (const name of ['rank', 'alpha', 'target_modules', 'use_rslora', 'use_dora'] as const)
    if (spelled(wished[name] ?? kept[name]) !== spelled(kept[name]))
      throw invalidRequest(
        `The model \`${model}\` is an adapter with ${name} ${kept[name]}, and a job that goes on from it cannot change that; found ${wished[name]}.`,
        { param: `method.${method.type}.hyperparameters.lora.${name}`, code: 'invalid_value' },
      )
}

const spelled = (value: unknown): string =>
  Array.isArray(value) ? [...value].sort().join() : String(value)

/** The method as the job keeps it; without one it is supervised. */
function methodOfRequest({ method, hyperparameters }: CreateJob): JobMethod {
  const type = METHOD_NAMES.find((name) => name === (method?.type ?? 'supervised'))
  if (!type) {
    const known = METHOD_NAMES.map((name) => `'${name}'`).join(', ')
    throw invalidRequest(
      `The method '${method?.type}' is not supported yet. Supported values are: ${known}.`,
      { param: 'method.type', code: 'unsupported_method' },
    )
  }
  for (const other of Object.keys(method ?? {}))
    if (other !== 'type' && other !== type)
      throw invalidRequest(`'method.${other}' does not belong to a method of type '${type}'.`, {
        param: `method.${other}`,
        code: 'invalid_value',
      })
  const merged = mergeHyperparameters(type, hyperparameters, method?.[type]?.hyperparameters)
  return { type, [type]: { hyperparameters: merged } }
}

function refuseUnsupported({ integrations, metadata }: CreateJob): void {
  for (const key of Object.keys(metadata ?? {}))
    if (key.length > METADATA_KEY)
      throw invalidRequest(
        `Invalid 'metadata': a key has ${key.length} characters, expected at most ${METADATA_KEY}.`,
        { param: 'metadata', code: 'invalid_value' },
      )
  if (integrations && integrations.length > 0)
    throw invalidRequest('Integrations are not supported yet.', {
      param: 'integrations',
      code: 'unsupported_integration',
    })
}
