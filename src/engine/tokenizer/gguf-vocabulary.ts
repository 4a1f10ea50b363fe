// The vocabulary inside a GGUF, written out as the tokenizer.json that the model had before it was converted.

import { basename } from 'node:path'
import { type Gguf, readGguf } from '../weights/gguf.ts'
import type { AddedToken, Component, TokenizerJson, Vocabulary } from './vocabulary.ts'

// llama.cpp's token types.
const UNKNOWN = 2
const CONTROL = 3
const USER_DEFINED = 4

/** Reads `tokenizer.ggml.*` of a file. */
export async function readGgufVocabulary(file: string): Promise<Vocabulary> {
  return ggufVocabulary(await readGguf(file), basename(file))
}

/** The vocabulary of a parsed GGUF; `where` opens every message. */
export function ggufVocabulary({ metadata }: Gguf, where: string): Vocabulary {
  const get = (key: string) => metadata.get(`tokenizer.ggml.${key}`)
  const list = <T extends 'string' | 'number'>(key: string, type: T) => {
    const value = get(key)
    if (!Array.isArray(value) || value.some((item) => typeof item !== type))
      throw new Error(`${where}: tokenizer.ggml.${key} is not a list of ${type}s`)
    return value as (T extends 'string' ? string : number)[]
  }
  const flag = (key: string, fallback: boolean) => {
    const value = get(key)
    return typeof value === 'boolean' ? value : fallback
  }

  const tokens = list('tokens', 'string')
  const types = list('token_type', 'number')
  if (types.length !== tokens.length)
    throw new Error(`${where}: ${tokens.length} tokens have ${types.length} token types`)
  const tokenAt = (key: string): string | undefined => {
    const id = get(`${key}_token_id`)
    if (id === undefined) return undefined
    if (typeof id !== 'number' || tokens[id] === undefined)
      throw new Error(`${where}: tokenizer.ggml.${key}_token_id is ${id}, outside the vocabulary`)
    return tokens[id]
  }

  const bos_token = tokenAt('bos')
  const kind = get('model')
  const added_tokens = addedTokens(tokens, types)
  const shared = { tokens, added_tokens, unk_token: tokenAt('unknown') }
  let json: TokenizerJson
  let addBos: boolean
  if (kind === 'gpt2') {
    const pre = preTokenizer(get('pre'), where)
    json = byteLevelJson({ ...shared, merges: list('merges', 'string'), pre })
    addBos = flag('add_bos_token', pre.add_bos)
  } else if (kind === 'llama') {
    const prefix = flag('add_space_prefix', true)
    const scores = list('scores', 'number')
    if (scores.length !== tokens.length)
      throw new Error(`${where}: ${tokens.length} tokens have ${scores.length} scores`)
    json = sentencePieceJson({ ...shared, scores, prefix })
    addBos = flag('add_bos_token', true)
  } else throw new Error(`${where}: a tokenizer of type ${kind} is not supported`)

  if (addBos && bos_token !== undefined)
    json.post_processor = prependToken(bos_token, tokens.indexOf(bos_token))
  const ends = ['eos', 'eot', 'eom'].map((key) => get(`${key}_token_id`))
  return {
    json,
    bos_token,
    eos_token: tokenAt('eos'),
    eos_token_ids: ends.filter((id): id is number => typeof id === 'number' && id in tokens),
  }
}

const addedTokens = (tokens: readonly string[], types: readonly number[]): AddedToken[] =>
  tokens.flatMap((content, id) => {
    const type = types[id]
    if (type !== UNKNOWN && type !== CONTROL && type !== USER_DEFINED) return []
    return [{ id, content, special: type !== USER_DEFINED, normalized: false }]
  })

interface Shared {
  tokens: readonly string[]
  added_tokens: AddedToken[]
  unk_token: string | undefined
}

interface PreTokenizer {
  normalizer: Component | null
  pre_tokenizer: Component | null
  ignore_merges: boolean
  /** Whether llama.cpp adds BOS when the file does not say. */
  add_bos: boolean
}

function byteLevelJson({
  tokens,
  added_tokens,
  merges,
  pre,
}: Shared & { merges: readonly string[]; pre: PreTokenizer }): TokenizerJson {
  return {
    added_tokens,
    normalizer: pre.normalizer,
    pre_tokenizer: pre.pre_tokenizer,
    post_processor: null,
    decoder: byteLevel(true),
    model: {
      type: 'BPE',
      vocab: ids(tokens),
      merges,
      ignore_merges: pre.ignore_merges,
      byte_fallback: false,
      unk_token: null,
    },
  }
}

function sentencePieceJson({
  tokens,
  added_tokens,
  unk_token,
  scores,
  prefix,
}: Shared & { scores: readonly number[]; prefix: boolean }): TokenizerJson {
  const vocab = ids(tokens)
  const space = { type: 'Replace', pattern: { String: ' ' }, content: '▁' }
  const prepend = { type: 'Prepend', prepend: '▁' }
  const decoders: Component[] = [
    { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
    { type: 'ByteFallback' },
    { type: 'Fuse' },
  ]
  if (prefix) decoders.push({ type: 'Strip', content: ' ', start: 1, stop: 0 })
  return {
    added_tokens,
    normalizer: { type: 'Sequence', normalizers: prefix ? [prepend, space] : [space] },
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: 'Sequence', decoders },
    model: {
      type: 'BPE',
      vocab,
      merges: mergesFromScores(tokens, scores, new Set(added_tokens.map(({ content }) => content))),
      byte_fallback: true,
      fuse_unk: true,
      unk_token: unk_token ?? null,
    },
  }
}

/**
 * SentencePiece joins the neighbours whose piece has the best score. As merges: every split of every piece into two
 * pieces, best piece first.
 */
function mergesFromScores(
  tokens: readonly string[],
  scores: readonly number[],
  added: ReadonlySet<string>,
): [string, string][] {
  const known = new Set(tokens)
  const order = tokens
    .map((_, id) => id)
    .filter((id) => !added.has(tokens[id]!))
    .sort((a, b) => scores[b]! - scores[a]! || a - b)
  const merges: [string, string][] = []
  for (const id of order) {
    const chars = Array.from(tokens[id]!)
    for (let at = 1; at < chars.length; at++) {
      const left = chars.slice(0, at).join('')
      const right = chars.slice(at).join('')
      if (known.has(left) && known.has(right)) merges.push([left, right])
    }
  }
  return merges
}

const ids = (tokens: readonly string[]): Record<string, number> => {
  // No prototype: a token may be called `constructor` or `__proto__`.
  const vocab: Record<string, number> = Object.create(null)
  for (const [id, token] of tokens.entries()) vocab[token] ??= id
  return vocab
}

const byteLevel = (use_regex: boolean): Component => ({
  type: 'ByteLevel',
  add_prefix_space: false,
  trim_offsets: true,
  use_regex,
})

const split = (Regex: string) => ({
  type: 'Split',
  pattern: { Regex },
  behavior: 'Isolated',
  invert: false,
})

const inTurn = (...pretokenizers: Component[]): Component => ({ type: 'Sequence', pretokenizers })

const LLAMA3 =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
const QWEN2 = LLAMA3.replace('\\p{N}{1,3}', '\\p{N}')

/** What `tokenizer.ggml.pre` stands for in Hugging Face's words. */
function preTokenizer(pre: unknown, where: string): PreTokenizer {
  const plain = { normalizer: null, ignore_merges: false, add_bos: false }
  switch (pre) {
    case 'smollm':
      return {
        ...plain,
        pre_tokenizer: inTurn({ type: 'Digits', individual_digits: true }, byteLevel(true)),
      }
    case 'gpt-2':
      return { ...plain, pre_tokenizer: byteLevel(true) }
    case 'llama-bpe':
      return {
        ...plain,
        pre_tokenizer: inTurn(split(LLAMA3), byteLevel(false)),
        ignore_merges: true,
        add_bos: true,
      }
    case 'qwen2':
      return {
        ...plain,
        normalizer: { type: 'NFC' },
        pre_tokenizer: inTurn(split(QWEN2), byteLevel(false)),
      }
    default:
      throw new Error(`${where}: pre-tokenizer ${JSON.stringify(pre)} is not supported`)
  }
}

const PRE_TOKENIZERS = ['smollm', 'gpt-2', 'llama-bpe', 'qwen2'] as const

/** What llama.cpp calls a byte-level tokenizer.json's pre-tokenizer; throws where it is none that it knows by us. */
export function preTokenizerName({ pre_tokenizer }: TokenizerJson): string {
  const wanted = stepsOf(pre_tokenizer)
  const found = PRE_TOKENIZERS.find(
    (name) => stepsOf(preTokenizer(name, name).pre_tokenizer) === wanted,
  )
  if (found === undefined)
    throw new Error(
      `tokenizer.json: its pre-tokenizer has no name in a GGUF that is known: ${wanted}`,
    )
  return found
}

/** What a pre-tokenizer does, in turn, without the fields that change nothing. */
function stepsOf(part: Component | null): string {
  if (!part) return ''
  if (part.pretokenizers) return part.pretokenizers.map(stepsOf).join(' ')
  if (part.type === 'Split') return `Split ${JSON.stringify(part.pattern)}`
  if (part.type === 'Digits') return `Digits ${part.individual_digits === true}`
  if (part.type === 'ByteLevel') return `ByteLevel ${part.use_regex !== false}`
  return part.type
}

const prependToken = (token: string, id: number) => ({
  type: 'TemplateProcessing',
  single: [{ SpecialToken: { id: token, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
  pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
  special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
})
