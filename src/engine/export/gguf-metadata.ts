// What a GGUF says of a model besides its tensors: architecture, tokenizer, template. Knows no bytes.

import { readFolderVocabulary } from '../tokenizer/folder-vocabulary.ts'
import { preTokenizerName } from '../tokenizer/gguf-vocabulary.ts'
import { putsSpaceBefore, type Vocabulary } from '../tokenizer/vocabulary.ts'
import type { ModelConfig } from '../weights/families/family.ts'
import { readGguf } from '../weights/gguf.ts'
import type { ExportModel } from './model.ts'

export type GgufField =
  | { readonly type: 'u32' | 'f32'; readonly value: number }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'strings'; readonly value: readonly string[] }
  | { readonly type: 'i32s' | 'f32s'; readonly value: readonly number[] }

export type GgufFields = Map<string, GgufField>

const u32 = (value: number): GgufField => ({ type: 'u32', value })
const f32 = (value: number): GgufField => ({ type: 'f32', value })
const text = (value: string): GgufField => ({ type: 'string', value })

/** llama.cpp has no mistral of its own: without a window it is a llama. */
export function ggufArchitecture({ model_type, sliding_windows }: ModelConfig): string {
  if (sliding_windows?.some((window) => window !== null))
    throw new Error(`A ${model_type} whose layers see a window of tokens has no GGUF here.`)
  return model_type === 'mistral' ? 'llama' : model_type
}

/** All metadata; `name` is what the model is called. */
export async function ggufFields(
  model: ExportModel,
  {
    name,
    file_type,
    statement,
  }: { name: string; file_type: number; statement?: string | undefined },
): Promise<GgufFields> {
  const architecture = ggufArchitecture(model.config)
  const fields: GgufFields = new Map([
    ['general.architecture', text(architecture)],
    ['general.type', text('model')],
    ['general.name', text(name)],
    ['general.file_type', u32(file_type)],
    ['general.quantization_version', u32(2)],
  ])
  if (statement !== undefined) fields.set('luthier.provenance', text(statement))
  for (const [key, field] of Object.entries(sizes(model.config)))
    fields.set(`${architecture}.${key}`, field)
  const tokens =
    model.base.format === 'gguf' ? await copiedTokens(model.base.path) : await tokensOf(model)
  for (const [key, field] of tokens) fields.set(key, field)
  if (model.chat_template !== undefined)
    fields.set('tokenizer.chat_template', text(model.chat_template))
  return fields
}

function sizes(config: ModelConfig): Record<string, GgufField> {
  const { rope_theta, rope_scaling } = config
  return {
    context_length: u32(config.max_position_embeddings),
    embedding_length: u32(config.hidden_size),
    block_count: u32(config.num_hidden_layers),
    feed_forward_length: u32(config.intermediate_size),
    'attention.head_count': u32(config.num_attention_heads),
    ...(rope_theta === undefined
      ? { 'attention.layer_norm_epsilon': f32(config.norm_eps) }
      : {
          vocab_size: u32(config.vocab_size),
          'attention.head_count_kv': u32(config.num_key_value_heads),
          'attention.key_length': u32(config.head_dim),
          'attention.value_length': u32(config.head_dim),
          'attention.layer_norm_rms_epsilon': f32(config.norm_eps),
          'rope.dimension_count': u32(config.head_dim),
          'rope.freq_base': f32(rope_theta),
        }),
    ...(rope_scaling?.rope_type === 'linear' && {
      'rope.scaling.type': text('linear'),
      'rope.scaling.factor': f32(rope_scaling.factor),
    }),
  }
}

/** A GGUF's own tokenizer, field by field. */
async function copiedTokens(file: string): Promise<GgufFields> {
  const fields: GgufFields = new Map()
  for (const [key, value] of (await readGguf(file)).metadata) {
    if (!key.startsWith('tokenizer.') || key === 'tokenizer.chat_template') continue
    if (typeof value === 'string') fields.set(key, text(value))
    else if (typeof value === 'boolean') fields.set(key, { type: 'bool', value })
    else if (typeof value === 'number')
      fields.set(key, Number.isInteger(value) ? u32(value) : f32(value))
    else if (Array.isArray(value) && value.every((item) => typeof item === 'string'))
      fields.set(key, { type: 'strings', value })
    else if (Array.isArray(value) && value.every((item) => typeof item === 'number'))
      fields.set(key, { type: key.endsWith('.scores') ? 'f32s' : 'i32s', value })
  }
  return fields
}

// llama.cpp's token types.
const NORMAL = 1
const UNKNOWN = 2
const CONTROL = 3
const USER_DEFINED = 4
const UNUSED = 5
const BYTE = 6

async function tokensOf({ base, config }: ExportModel): Promise<GgufFields> {
  const vocabulary = await readFolderVocabulary(base.path)
  const { json, bos_token, eos_token, eos_token_ids } = vocabulary
  if (json.model.type !== 'BPE')
    throw new Error(`tokenizer.json: a ${json.model.type} has no GGUF here.`)
  const pieces = json.model.byte_fallback === true
  const { tokens, types } = tokenTable(vocabulary, config.vocab_size, pieces)
  const merges = mergesOf(json.model.merges)
  const fields: GgufFields = new Map([
    ['tokenizer.ggml.model', text(pieces ? 'llama' : 'gpt2')],
    ['tokenizer.ggml.pre', text(pieces ? 'default' : preTokenizerName(json))],
    ['tokenizer.ggml.tokens', { type: 'strings', value: tokens }],
    ['tokenizer.ggml.token_type', { type: 'i32s', value: types }],
  ])
  if (pieces) {
    fields.set('tokenizer.ggml.scores', { type: 'f32s', value: scoresOf(tokens, merges) })
    fields.set('tokenizer.ggml.add_space_prefix', { type: 'bool', value: putsSpaceBefore(json) })
  } else
    fields.set('tokenizer.ggml.merges', {
      type: 'strings',
      value: merges.map((pair) => pair.join(' ')),
    })
  const role = (key: string, id: number) => {
    if (id >= 0) fields.set(`tokenizer.ggml.${key}_token_id`, u32(id))
  }
  const idOf = (token: unknown) => tokens.indexOf(String(token))
  if (bos_token !== undefined) role('bos', idOf(bos_token))
  if (eos_token !== undefined) role('eos', idOf(eos_token))
  const turn = eos_token_ids.find((id) => id !== idOf(eos_token))
  if (turn !== undefined) role('eot', turn)
  if (typeof json.model.unk_token === 'string') role('unknown', idOf(json.model.unk_token))
  const addsBos =
    bos_token !== undefined && JSON.stringify(json.post_processor ?? '').includes(`"${bos_token}"`)
  fields.set('tokenizer.ggml.add_bos_token', { type: 'bool', value: addsBos })
  return fields
}

function tokenTable({ json }: Vocabulary, size: number, pieces: boolean) {
  const tokens = Array.from({ length: size }, (_, id) => `[PAD${id}]`)
  const types = new Array<number>(size).fill(UNUSED)
  for (const [token, id] of Object.entries(json.model.vocab)) {
    if (id >= size) continue
    tokens[id] = token
    types[id] = pieces && /^<0x[0-9A-F]{2}>$/.test(token) ? BYTE : NORMAL
  }
  for (const { id, content, special } of json.added_tokens) {
    if (id >= size)
      throw new Error(`tokenizer.json: token ${content} lies beyond the ${size} of the model`)
    tokens[id] = content
    types[id] = special ? CONTROL : USER_DEFINED
    if (pieces && content === json.model.unk_token) types[id] = UNKNOWN
  }
  return { tokens, types }
}

const mergesOf = (merges: unknown): [string, string][] =>
  (Array.isArray(merges) ? merges : []).map((merge: string | [string, string]) =>
    typeof merge === 'string' ? (merge.split(' ') as [string, string]) : merge,
  )

/** What is joined first scores best; what nothing is joined to scores least. */
function scoresOf(tokens: readonly string[], merges: readonly [string, string][]): number[] {
  const first = new Map<string, number>()
  for (const [rank, [left, right]] of merges.entries())
    if (!first.has(left + right)) first.set(left + right, rank)
  return tokens.map((token) => -(first.get(token) ?? merges.length))
}
