// Where the rows of a run come from, in OpenAI's words; and the bytes that they are kept as.

import type { TemplateMessage } from '../../engine/eval/grader.ts'
import type { ItemSchema } from '../../engine/eval/items.ts'
import type { PromptMessage } from '../../engine/eval/prompt.ts'
import type { Eval } from '../db/evals.ts'
import { releaseObjects, type Stores } from '../storage/objects.ts'

export interface RowSource {
  type: 'file_content' | 'file_id' | 'stored_completions' | 'responses'
  content?: { item: Record<string, unknown>; sample?: Record<string, unknown> | null }[]
  id?: string
}

export interface SamplingParams {
  temperature?: number | null
  top_p?: number | null
  seed?: number | null
  max_completion_tokens?: number | null
  response_format?: { type: string } | null
  text?: { format?: { type: string } } | null
  tools?: unknown[] | null
}

/** A run's `data_source`: rows that bring their samples, or rows from which a model is asked. */
export interface DataSource {
  type: 'jsonl' | 'completions' | 'responses'
  source: RowSource
  model?: string
  input_messages?:
    | { type: 'template'; template: TemplateMessage[] }
    | { type: 'item_reference'; item_reference: string }
  sampling_params?: SamplingParams
}

/** What a model is asked with where the request does not say. */
export const SAMPLING = { temperature: 1, top_p: 1, seed: 42, max_completion_tokens: 512 }

/** The sampling parameters with their defaults. */
export function samplingOf({ sampling_params }: DataSource) {
  const { temperature, top_p, seed, max_completion_tokens } = sampling_params ?? {}
  return {
    temperature: temperature ?? SAMPLING.temperature,
    top_p: top_p ?? SAMPLING.top_p,
    seed: seed ?? SAMPLING.seed,
    max_completion_tokens: max_completion_tokens ?? SAMPLING.max_completion_tokens,
  }
}

/** The schema that each row's `item` must fit. */
export const schemaOf = ({ data_source_config }: Pick<Eval, 'data_source_config'>): ItemSchema =>
  data_source_config.item_schema

/** Rows that came with a request, as the file that they might have been. */
export async function* asJsonl(rows: readonly unknown[]): AsyncGenerator<Uint8Array> {
  for (const row of rows) yield Buffer.from(`${JSON.stringify(row)}\n`)
}

/** Examples stand behind what the system says and before what is asked. */
export function withExamples(
  messages: readonly PromptMessage[],
  examples: readonly PromptMessage[],
): PromptMessage[] {
  const at = messages.findIndex(({ role }) => role !== 'system')
  const begin = at < 0 ? messages.length : at
  return [...messages.slice(0, begin), ...examples, ...messages.slice(begin)]
}

/** Lets go of the bytes that a deleted run had pinned. */
export async function releaseItems(
  stores: Stores,
  project_id: string,
  run: { items_sha256: string; few_shot_sha256: string | null },
): Promise<void> {
  const pinned = [run.items_sha256, run.few_shot_sha256].filter((sha256) => sha256 !== null)
  await releaseObjects(stores, project_id, pinned)
}
