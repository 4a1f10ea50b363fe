// The vocabulary of a Hugging Face folder: tokenizer.json and what the configs say of its tokens.

import { basename } from 'node:path'
import { readJson } from '../weights/checkpoint.ts'
import { checkTokenizerJson, type Vocabulary } from './vocabulary.ts'

/** Reads tokenizer.json, tokenizer_config.json, config.json and generation_config.json. */
export async function readFolderVocabulary(folder: string): Promise<Vocabulary> {
  const json = await readJson(folder, 'tokenizer.json')
  if (json === undefined) throw new Error(`${basename(folder)}: tokenizer.json is missing`)
  const settings = record(await readJson(folder, 'tokenizer_config.json'))
  const config = record(await readJson(folder, 'config.json'))
  const generation = record(await readJson(folder, 'generation_config.json'))
  return {
    json: checkTokenizerJson(json, folder),
    bos_token: tokenText(settings.bos_token),
    eos_token: tokenText(settings.eos_token),
    eos_token_ids: [...ids(generation.eos_token_id), ...ids(config.eos_token_id)],
  }
}

const record = (json: unknown): Record<string, unknown> =>
  typeof json === 'object' && json !== null ? (json as Record<string, unknown>) : {}

/** A token is written as its text, or as an object with `content`. */
function tokenText(token: unknown): string | undefined {
  if (typeof token === 'string') return token
  const { content } = record(token)
  return typeof content === 'string' ? content : undefined
}

const ids = (value: unknown): number[] =>
  (Array.isArray(value) ? value : [value]).filter((id) => Number.isSafeInteger(id))
