// What a run needs before it is written, made sure of and pinned: its rows, its examples, its way of asking.

import { checkMessages } from '../../engine/eval/template.ts'
import { invalidRequest } from '../../errors.ts'
import type { RunExtension } from '../db/eval-runs.ts'
import type { Eval } from '../db/evals.ts'
import { findFile } from '../db/files.ts'
import { type Db, transaction } from '../db/pool.ts'
import { keepObject, type Stores } from '../storage/objects.ts'
import { asJsonl, type DataSource, schemaOf } from './data.ts'
import type { Grading } from './grading.ts'

export interface PreparingDeps {
  stores: Stores
  grading: Grading
}

/** Rows that are checked as far as they came with the request. */
export interface PinnedRows {
  items_sha256: string
  /** Writes in a transaction in which the pinned bytes cannot go. */
  commit<T>(write: (tx: Db) => Promise<T>): Promise<T>
}

/** The rows of a data source. Throws what its sender can mend. */
export async function pinRows(
  { stores, grading }: PreparingDeps,
  one: Eval,
  { source }: DataSource,
): Promise<PinnedRows> {
  const { project_id } = one
  if (source.type === 'file_id') {
    const where = 'data_source.source.id'
    const items_sha256 = await fileOf(stores.db, project_id, { id: source.id ?? '', param: where })
    return { items_sha256, commit: (write) => transaction(stores.db, write) }
  }
  const content = source.content ?? []
  await checkContent(grading, content, one)
  const staged = await stores.store.stage(asJsonl(content))
  return {
    items_sha256: staged.sha256,
    commit: (write) => keepObject(stores, project_id, staged, write),
  }
}

/** The file that examples are chosen from, where some are wanted. */
export const examplesOf = async (
  { stores }: Pick<PreparingDeps, 'stores'>,
  project_id: string,
  luthier: RunExtension | undefined,
  param = 'luthier.few_shot.file_id',
): Promise<string | null> =>
  luthier?.few_shot ? fileOf(stores.db, project_id, { id: luthier.few_shot.file_id, param }) : null

async function fileOf(
  db: Db,
  project_id: string,
  { id, param }: { id: string; param: string },
): Promise<string> {
  const file = await findFile(db, project_id, id)
  if (!file)
    throw invalidRequest(`The file \`${id}\` does not exist.`, { param, code: 'invalid_file' })
  if (file.status === 'error')
    throw invalidRequest(`The file \`${id}\` is no JSONL: ${file.status_details}`, {
      param,
      code: 'invalid_file',
    })
  return file.sha256
}

async function checkContent(grading: Grading, content: unknown[], one: Eval): Promise<void> {
  const bad = await grading.badItem(content, schemaOf(one)).catch((error: unknown) => {
    if (!(error instanceof Error) || error.name !== 'GradingStopped') throw error
    return { index: 0, error: `cannot be held against the eval's schema: ${error.message}` }
  })
  if (!bad) return
  const param = `data_source.source.content[${bad.index}]`
  throw invalidRequest(`Invalid '${param}': ${bad.error}`, { param, code: 'invalid_item' })
}

/** Throws for what this server cannot draw on or ask with, and for what is missing. */
export function refuseUnsupported(data_source: DataSource): void {
  const { source, input_messages, sampling_params = {} } = data_source
  if (source.type === 'stored_completions' || source.type === 'responses')
    throw invalidRequest(
      "A run cannot draw on stored completions and responses here. Use a source of type 'file_content' or 'file_id'.",
      { param: 'data_source.source.type', code: 'unsupported_data_source' },
    )
  if (source.type === 'file_content' && !source.content?.length)
    throw source.content
      ? invalidRequest("Invalid 'data_source.source.content': expected at least one row.", {
          param: 'data_source.source.content',
          code: 'invalid_value',
        })
      : missing('data_source.source.content')
  if (source.type === 'file_id' && source.id === undefined) throw missing('data_source.source.id')
  if (data_source.type === 'jsonl') return
  if (!input_messages) throw missing('data_source.input_messages')
  if (input_messages.type === 'template')
    checkMessages(input_messages.template, 'data_source.input_messages.template')
  const where = 'data_source.sampling_params'
  const { response_format, text, tools } = sampling_params
  const format = response_format?.type ?? text?.format?.type ?? 'text'
  if (format !== 'text')
    throw unsupported(`${where}.${response_format ? 'response_format' : 'text'}`)
  if (tools && tools.length > 0) throw unsupported(`${where}.tools`)
}

export const missing = (param: string) =>
  invalidRequest(`Missing required parameter: '${param}'.`, {
    param,
    code: 'missing_required_parameter',
  })

const unsupported = (param: string) =>
  invalidRequest(`Unsupported parameter: '${param}' is not supported by this server.`, {
    param,
    code: 'unsupported_parameter',
  })
