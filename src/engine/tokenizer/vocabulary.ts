// What a tokenizer is built from, wherever it was read: a tokenizer.json and the few tokens with a role.

import { basename } from 'node:path'

export interface AddedToken {
  id: number
  content: string
  special: boolean
  single_word?: boolean
  lstrip?: boolean
  rstrip?: boolean
  normalized?: boolean
}

/** The parts of a tokenizer.json that we look into; the library reads the rest. */
export interface TokenizerJson {
  added_tokens: AddedToken[]
  normalizer: Component | null
  pre_tokenizer: Component | null
  post_processor: unknown
  decoder: Component | null
  model: { type: string; vocab: Record<string, number>; [key: string]: unknown }
}

/** One of tokenizer.json's nested parts. */
export interface Component {
  type: string
  decoders?: Component[]
  normalizers?: Component[]
  pretokenizers?: Component[]
  [key: string]: unknown
}

export interface Vocabulary {
  readonly json: TokenizerJson
  readonly bos_token: string | undefined
  readonly eos_token: string | undefined
  /** What config and generation_config, or the GGUF, call an end. */
  readonly eos_token_ids: readonly number[]
}

// Tables are as long as the greatest id: one beyond any vocabulary is a lie.
const GREATEST_ID = 2 ** 24
const isId = (id: unknown) =>
  Number.isSafeInteger(id) && Number(id) >= 0 && Number(id) < GREATEST_ID

/** Checks the parts of a parsed tokenizer.json that later code relies on. */
export function checkTokenizerJson(json: unknown, path: string): TokenizerJson {
  const where = `${basename(path)}: tokenizer.json`
  const root = json as Partial<TokenizerJson> | null
  if (typeof root !== 'object' || root === null) throw new Error(`${where} is not a JSON object`)
  const model = root.model
  if (typeof model !== 'object' || model === null || typeof model.vocab !== 'object')
    throw new Error(`${where} has no model with a vocabulary`)
  if (model.type !== 'BPE' && model.type !== 'WordPiece')
    throw new Error(
      `${where}: a model of type ${model.type} is not supported, only BPE and WordPiece`,
    )
  for (const id of Object.values(model.vocab))
    if (!isId(id)) throw new Error(`${where}: the vocabulary has an id ${JSON.stringify(id)}`)
  const added_tokens = root.added_tokens ?? []
  for (const token of added_tokens)
    if (typeof token?.content !== 'string' || !isId(token.id))
      throw new Error(`${where}: added token ${JSON.stringify(token)} has no content or no id`)
  return {
    ...root,
    added_tokens,
    model,
    normalizer: root.normalizer ?? null,
    pre_tokenizer: root.pre_tokenizer ?? null,
    post_processor: root.post_processor ?? null,
    decoder: root.decoder ?? null,
  }
}

/**
 * The same tokenizer, whose `Digits` are a `Split`: to the reference every number (½, ², ٣) is a digit,
 * to the library those of ASCII alone.
 */
export const withAllDigits = (json: TokenizerJson): TokenizerJson => ({
  ...json,
  pre_tokenizer: json.pre_tokenizer && splitDigits(json.pre_tokenizer),
})

function splitDigits(part: Component): Component {
  if (part.pretokenizers) return { ...part, pretokenizers: part.pretokenizers.map(splitDigits) }
  if (part.type !== 'Digits') return part
  const Regex = part.individual_digits ? '\\p{N}' : '\\p{N}+'
  return { type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false }
}

/** The same tokenizer, which reads special tokens as ordinary text. */
export const withoutSpecialTokens = (json: TokenizerJson): TokenizerJson => ({
  ...json,
  added_tokens: json.added_tokens.filter(({ special }) => !special),
})

/** Whether a space is put before every text, as llama 2 does. */
export const putsSpaceBefore = (json: TokenizerJson): boolean =>
  JSON.stringify(withoutSpaceBefore(json).normalizer) !== JSON.stringify(json.normalizer) ||
  JSON.stringify(withoutSpaceBefore(json).pre_tokenizer) !== JSON.stringify(json.pre_tokenizer)

/** The same tokenizer, which takes a text as it is. */
export const withoutSpaceBefore = (json: TokenizerJson): TokenizerJson => ({
  ...json,
  normalizer: withoutPrefix(json.normalizer),
  pre_tokenizer: withoutPrefix(json.pre_tokenizer),
})

function withoutPrefix(part: Component | null): Component | null {
  if (!part || part.type === 'Prepend') return null
  const kept = (parts: Component[]) => parts.map(withoutPrefix).filter((inner) => inner !== null)
  if (part.normalizers) return { ...part, normalizers: kept(part.normalizers) }
  if (part.pretokenizers) return { ...part, pretokenizers: kept(part.pretokenizers) }
  if (part.type === 'Metaspace')
    return { ...part, prepend_scheme: 'never', add_prefix_space: false }
  if (part.type === 'ByteLevel') return { ...part, add_prefix_space: false }
  return part
}

/** Where the first special token written in a text begins; its length where there is none. */
export function specialFinder(json: TokenizerJson): (text: string) => number {
  const contents = json.added_tokens.filter(({ special }) => special).map(({ content }) => content)
  if (contents.length === 0) return (text) => text.length
  const escaped = contents.map((content) => content.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
  const pattern = new RegExp(escaped.join('|'))
  return (text) => {
    const at = text.search(pattern)
    return at < 0 ? text.length : at
  }
}
