// One vocabulary out of several, and which row of each model's tables belongs to each of its tokens.

import { invalidRequest } from '../../errors.ts'
import { readFolderVocabulary } from '../tokenizer/folder-vocabulary.ts'
import { readGgufVocabulary } from '../tokenizer/gguf-vocabulary.ts'
import type { AddedToken, TokenizerJson } from '../tokenizer/vocabulary.ts'
import { keyOf, type ModelName, type TokenizerSettings, type TokenSource } from './config.ts'
import type { OpenModel } from './models.ts'

/** Tables with a row for each token, of any family. */
export const isTokenTable = (name: string): boolean =>
  /\b(embed_tokens|word_embeddings|wte|lm_head)\.weight$/.test(name)

interface Words {
  readonly json: TokenizerJson
  /** Token → id, of those that the model has rows for. */
  readonly ids: ReadonlyMap<string, number>
}

export interface MergedTokens {
  /** The result's tokenizer.json, where it is nobody's. */
  readonly json?: TokenizerJson
  /** Whose tokenizer it is, or is built on. */
  readonly source: ModelName
  readonly tokens: readonly string[]
  /** Rows of the result's tables. */
  readonly rows: number
  readonly settings: TokenizerSettings
  readonly words: ReadonlyMap<string, Words>
}

/** Where a row comes from that an input has not: the mean of so many rows of the inputs, or zeros. */
export type Lent = readonly (readonly [input: number, row: number])[]

/** How the rows of a result's table are made of the inputs' tables. */
export interface TableRows {
  /** Of each input: its row for each token, -1 where it has none or another one is to be taken. */
  readonly own: readonly (readonly number[])[]
  /** Of each token, where it comes from for those without a row of their own. */
  readonly lent: readonly Lent[]
  /** Rows behind the last token: the mean of all before. */
  readonly padded: number
}

/**
 * Settles the tokens of a merge, as mergekit does: those of the base, of a named model, or of all. Undefined where every
 * table can stay as it is.
 */
export async function mergeTokens(
  settings: TokenizerSettings,
  { reference, inputs }: { reference: ModelName; inputs: readonly ModelName[] },
  models: ReadonlyMap<string, OpenModel>,
): Promise<MergedTokens | undefined> {
  const source = typeof settings.source === 'object' ? settings.source : reference
  const all = [
    ...new Map([reference, ...inputs, source].map((name) => [keyOf(name), name])).values(),
  ]
  const words = new Map<string, Words>()
  for (const name of all) words.set(keyOf(name), await wordsOf(models.get(keyOf(name))!))
  const first = words.get(keyOf(source))!
  const json =
    settings.source === 'union'
      ? union(
          first,
          [reference, ...inputs].map((name) => words.get(keyOf(name))!),
        )
      : undefined
  const ids = json ? idsOf(json) : first.ids
  const tokens: string[] = []
  for (const [token, id] of ids) tokens[id] = token
  for (let id = 0; id < tokens.length; id++)
    if (tokens[id] === undefined)
      throw unsupported('tokenizer_source', `${keyOf(source)} has no token of the id ${id}`)
  const { pad_to_multiple_of: multiple = 1 } = settings
  const rows = Math.ceil(tokens.length / multiple) * multiple
  const same = inputs.every((name) => {
    const own = words.get(keyOf(name))!.ids
    const table = tableOf(models.get(keyOf(name))!)
    return table === rows && tokens.every((token, id) => own.get(token) === id)
  })
  if (same && Object.keys(settings.tokens).length === 0) return undefined
  return { ...(json && { json }), source, tokens, rows, settings, words }
}

const unsupported = (param: string, why: string) =>
  invalidRequest(`Invalid '${param}': ${why}.`, { param, code: 'unsupported_value' })

const tableOf = ({ tensors }: OpenModel): number | undefined =>
  [...tensors].find(([name]) => isTokenTable(name) && !name.startsWith('lm_head'))?.[1].dims[0]

async function wordsOf(model: OpenModel): Promise<Words> {
  const { path, format } = model.checkpoint
  const { json } = await (format === 'gguf' ? readGgufVocabulary : readFolderVocabulary)(path)
  const rows = tableOf(model) ?? Number.POSITIVE_INFINITY
  return { json, ids: new Map([...idsOf(json)].filter(([, id]) => id < rows)) }
}

/** In the order of the ids. */
function idsOf({ model, added_tokens }: TokenizerJson): Map<string, number> {
  const ids = new Map(Object.entries(model.vocab))
  for (const { content, id } of added_tokens) ids.set(content, id)
  return new Map([...ids].sort(([, a], [, b]) => a - b))
}

/** The first's tokenizer, with the others' tokens added behind its own: those of their vocabularies, then added ones. */
function union(first: Words, others: readonly Words[]): TokenizerJson {
  const added: AddedToken[] = first.json.added_tokens.filter(({ content }) =>
    first.ids.has(content),
  )
  const known = new Set(first.ids.keys())
  let next = Math.max(-1, ...first.ids.values()) + 1
  const add = (token: Omit<AddedToken, 'id'>) => {
    if (known.has(token.content)) return
    known.add(token.content)
    added.push({ ...token, id: next++ })
  }
  const isAdded = new Set(
    others.flatMap(({ json }) => json.added_tokens.map(({ content }) => content)),
  )
  for (const { ids } of others)
    for (const content of ids.keys()) if (!isAdded.has(content)) add({ ...PLAIN, content })
  for (const { json, ids } of others)
    for (const token of json.added_tokens) if (ids.has(token.content)) add(token)
  return { ...first.json, added_tokens: added }
}

const PLAIN = { single_word: false, lstrip: false, rstrip: false, normalized: true, special: false }

/** The rows of one table, of which `inputs` have one each. Throws where a token is asked of a model that has it not. */
export function tableRows(
  { tokens, rows, settings, words }: MergedTokens,
  inputs: readonly string[],
  base: string | undefined,
): TableRows {
  const vocabularies = inputs.map((key) => words.get(key)!)
  const own: number[][] = inputs.map(() => [])
  const lent: Lent[] = []
  const at = base === undefined ? -1 : inputs.indexOf(base)
  for (const [id, token] of tokens.entries()) {
    const told = Object.hasOwn(settings.tokens, token) ? settings.tokens[token] : undefined
    const found = vocabularies.map(({ ids }) => ids.get(token) ?? -1)
    for (const [i, row] of found.entries()) own[i]!.push(told?.force ? -1 : row)
    lent[id] = told?.source
      ? toldRows(token, told.source, { inputs, vocabularies })
      : told?.force || found.some((row) => row < 0)
        ? rowsOfOthers(found, at)
        : []
  }
  return { own, lent, padded: rows - tokens.length }
}

/** The base's row, or the only one there is, or the mean of all. */
function rowsOfOthers(found: readonly number[], base: number): Lent {
  const all = found.flatMap((row, input) => (row < 0 ? [] : [[input, row] as const]))
  const own = all.find(([input]) => input === base)
  return own ? [own] : all
}

function toldRows(
  token: string,
  source: NonNullable<TokenSource['source']>,
  { inputs, vocabularies }: { inputs: readonly string[]; vocabularies: readonly Words[] },
): Lent {
  if (source === 'zero') return []
  const key = keyOf(source.model)
  const input = inputs.indexOf(key)
  const wanted = source.token ?? token
  const row = source.token_id ?? vocabularies[input]?.ids.get(wanted)
  if (input < 0 || row === undefined)
    throw unsupported(
      'tokenizer.tokens',
      input < 0 ? `${key} is not merged` : `${key} has no token ${JSON.stringify(wanted)}`,
    )
  return [[input, row]]
}
