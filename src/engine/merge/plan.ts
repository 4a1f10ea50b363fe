// A merge, settled before any work: every tensor of the result, what it is made of, and where its bytes will lie.

import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { invalidRequest } from '../../errors.ts'
import { isFloatDtype } from '../weights/dequantise.ts'
import { FOLDER_TEXTS } from '../weights/folder-files.ts'
import type { StoredTensor } from '../weights/stored-tensor.ts'
import { keyOf, type MergeConfig, type MergeDtype, type Slice } from './config.ts'
import { asReference, bareName, type OpenModel } from './models.ts'
import { type ParameterValue, resolve } from './settings.ts'
import { layOut, type Place, type Shard } from './shards.ts'
import {
  isTokenTable,
  type MergedTokens,
  mergeTokens,
  type TableRows,
  tableRows,
} from './tokens.ts'

export interface PlannedInput {
  readonly tensor: StoredTensor
  readonly isBase: boolean
  readonly parameters: Readonly<Record<string, ParameterValue | null>>
  /** The adapter over it, and which of its modules. */
  readonly lora?: { readonly file: string; readonly module: string; readonly turned: boolean }
}

export interface PlannedTensor extends Place {
  readonly name: string
  readonly dims: readonly number[]
  readonly dtype: StoredTensor['dtype']
  /** What inputs are rounded to. */
  readonly round?: MergeDtype
  readonly inputs: readonly PlannedInput[]
  readonly parameters: Readonly<Record<string, ParameterValue | null>>
  /** Taken as it is: integers, and what one model alone has. */
  readonly copied: boolean
  /** Of a table whose rows are put in another order, or added to. */
  readonly table?: TableRows
}

export interface MergePlan {
  readonly method: string
  readonly seed: number
  readonly tensors: readonly PlannedTensor[]
  readonly shards: readonly Shard[]
  readonly config: Readonly<Record<string, unknown>>
  /** Whose tokenizer the result gets: a folder, or the files themselves. */
  readonly reference: string
  readonly texts?: ReadonlyMap<string, Uint8Array>
  /** What the result has. */
  readonly chat_template: string | undefined
  /** Of everything that decides over the bytes: a merge that goes on must be the same. */
  readonly fingerprint: string
}

const SAFETENSORS: Readonly<Record<MergeDtype, 'F32' | 'F16' | 'BF16'>> = {
  float32: 'F32',
  float16: 'F16',
  bfloat16: 'BF16',
}
export const LAYER = /^(.*\b(?:layers|layer|h)\.)(\d+)(\..+)$/
/** How configs of the families count their layers. */
const LAYERS = ['num_hidden_layers', 'n_layer', 'n_layers']
const HEAD = /^(classifier|score|pre_classifier)\./

type Draft = Omit<PlannedTensor, keyof Place>

/** Settles a merge. Throws an ApiError that names the first tensor that does not fit, and both shapes. */
export async function planMerge(
  merge: MergeConfig,
  models: ReadonlyMap<string, OpenModel>,
): Promise<MergePlan> {
  const first = merge.base_model ?? merge.slices[0]!.sources[0]!.model
  const reference = asReference(models.get(keyOf(first))!)
  const inputs = [
    ...new Map(
      merge.slices.flatMap(({ sources }) => sources.map(({ model }) => [keyOf(model), model])),
    ).values(),
  ]
  const tokens =
    merge.tokenizer && (await mergeTokens(merge.tokenizer, { reference: first, inputs }, models))
  const drafts = [...draftTensors(merge, models, { reference, tokens })]
  const layers = merge.slices.reduce((n, slice) => n + layersOf(slice, models), 0)
  const { tensors, shards } = layOut(drafts, merge.max_shard_size)
  const dtype = dtypeName(tensors)
  const tied = tensors.some(({ name }) => name === 'lm_head.weight')
  const config = {
    ...reference.config,
    [LAYERS.find((name) => name in reference.config) ?? 'num_hidden_layers']: layers,
    ...vocabularyOf(drafts),
    ...(tokens && specialIds(models.get(keyOf(tokens.source))!)),
    ...(tied && reference.config.tie_word_embeddings === true && { tie_word_embeddings: false }),
    dtype,
    torch_dtype: dtype,
  }
  const plan = {
    method: merge.method.name,
    seed: merge.seed,
    tensors,
    shards,
    config,
    reference: reference.files.path,
  }
  const texts = await textsOf(merge, models, { reference, tokens })
  return {
    ...plan,
    ...(texts && { texts }),
    chat_template: templateOf(merge, models, reference),
    fingerprint: await fingerprint(plan, merge),
  }
}

function templateOf(
  { chat_template, tokenizer }: MergeConfig,
  models: ReadonlyMap<string, OpenModel>,
  reference: OpenModel,
): string | undefined {
  if (chat_template !== undefined && chat_template !== 'auto') return chat_template
  const source = typeof tokenizer?.source === 'object' ? tokenizer.source : undefined
  return (source ? models.get(keyOf(source))! : reference).checkpoint.chat_template
}

/** The ids that stand for a token with a role: of the model whose tokenizer the result has. */
const specialIds = ({ config }: OpenModel) =>
  Object.fromEntries(
    ['bos_token_id', 'eos_token_id', 'pad_token_id'].flatMap((key) =>
      key in config ? [[key, config[key]]] : [],
    ),
  )

/** The files beside the weights, where they are not the reference's as they lie. */
async function textsOf(
  { tokenizer }: MergeConfig,
  models: ReadonlyMap<string, OpenModel>,
  { reference, tokens }: Pick<Around, 'reference' | 'tokens'>,
): Promise<ReadonlyMap<string, Uint8Array> | undefined> {
  const source = typeof tokenizer?.source === 'object' ? tokenizer.source : undefined
  if (!source && !tokens?.json) return reference.texts
  const texts = new Map(await textsIn(source ? models.get(keyOf(source))! : reference))
  if (tokens?.json) texts.set('tokenizer.json', Buffer.from(JSON.stringify(tokens.json)))
  return texts
}

async function textsIn({ texts, files }: OpenModel): Promise<ReadonlyMap<string, Uint8Array>> {
  if (texts) return texts
  const found = FOLDER_TEXTS.filter((name) => existsSync(join(files.path, name)))
  return new Map(
    await Promise.all(
      found.map(async (name) => [name, await readFile(join(files.path, name))] as const),
    ),
  )
}

/** As many tokens as the table has rows, which an adapter may have added to. */
function vocabularyOf(drafts: readonly Draft[]) {
  const table = drafts.find(({ name }) =>
    /\b(embed_tokens|word_embeddings|wte)\.weight$/.test(name),
  )
  return table?.dims[0] === undefined ? {} : { vocab_size: table.dims[0] }
}

function layersOf({ sources }: Slice, models: ReadonlyMap<string, OpenModel>): number {
  const [source] = sources
  if (source!.layers) return source!.layers[1] - source!.layers[0]
  return models.get(keyOf(source!.model))!.checkpoint.config.num_hidden_layers
}

function* draftTensors(
  merge: MergeConfig,
  models: ReadonlyMap<string, OpenModel>,
  { reference, tokens }: Pick<Around, 'reference' | 'tokens'>,
): Generator<Draft> {
  const outside: string[] = []
  const inside = new Map<string, string>()
  const everywhere = new Set(
    merge.slices.flatMap(({ sources }) =>
      sources.flatMap(({ model }) => [...models.get(keyOf(model))!.tensors.keys()]),
    ),
  )
  for (const name of everywhere) {
    const layer = LAYER.exec(name)
    if (layer) inside.set(layer[3]!, layer[1]!)
    else outside.push(name)
  }
  for (const name of outside) {
    const slice = isEmbedding(name) ? merge.slices[0]! : merge.slices.at(-1)!
    yield draft({ merge, models, reference, tokens, slice }, { name, from: () => name, t: 0 })
  }
  let out = 0
  for (const slice of merge.slices) {
    const count = layersOf(slice, models)
    for (let i = 0; i < count; i++, out++)
      for (const [rest, prefix] of inside)
        yield draft(
          { merge, models, reference, tokens, slice },
          {
            name: `${prefix}${out}${rest}`,
            from: (first) => `${prefix}${first + i}${rest}`,
            t: count > 1 ? i / (count - 1) : 1,
          },
        )
  }
}

const isEmbedding = (name: string) => /embed|\bwte\b|\bwpe\b/.test(name)

interface Around {
  merge: MergeConfig
  models: ReadonlyMap<string, OpenModel>
  reference: OpenModel
  tokens: MergedTokens | undefined
  slice: Slice
}

interface Wanted {
  name: string
  /** The tensor's name in a model whose slice begins at this layer. */
  from: (first: number) => string
  t: number
}

function draft(
  { merge, models, reference, tokens, slice }: Around,
  { name, from, t }: Wanted,
): Draft {
  const base = slice.base_model ?? merge.base_model
  const kept = HEAD.test(name) && merge.head !== 'merge' ? headModel(merge) : undefined
  const sources = kept ? [{ model: kept, parameters: {} }] : slice.sources
  const shared = [slice.parameters, merge.parameters]
  const found = sources.map((source) => {
    const model = models.get(keyOf(source.model))!
    const own = from('layers' in source && source.layers ? source.layers[0] : 0)
    const tied = name === 'lm_head.weight' ? 'model.embed_tokens.weight' : own
    const tensor = model.tensors.get(own) ?? model.tensors.get(tied)
    if (!tensor)
      throw invalidRequest(
        `The models do not fit together: the tensor ${own} is missing in ${model.key}.`,
        { param: 'models', code: 'models_do_not_fit' },
      )
    return { source, model, own, tensor }
  })
  const [one] = found
  const isTable = tokens !== undefined && isTokenTable(name)
  /** Of a table whose rows are put in order, a row. */
  const compared = ({ dims }: StoredTensor) => String(isTable ? dims.slice(1) : dims)
  const dims = isTable ? [tokens.rows, ...one!.tensor.dims.slice(1)] : one!.tensor.dims
  for (const { tensor, model, own } of found)
    if (compared(tensor) !== compared(one!.tensor))
      throw invalidRequest(
        `The models do not fit together: the tensor ${own} has the shape [${one!.tensor.dims}] in ${one!.model.key} and [${tensor.dims}] in ${model.key}.`,
        { param: 'models', code: 'models_do_not_fit' },
      )
  const copied = kept !== undefined || !isFloatDtype(one!.tensor.dtype)
  const parametersOf = (of: 'merge' | 'input' | 'other', tensor: string, own: object = {}) =>
    copied
      ? {}
      : Object.fromEntries(
          Object.entries(merge.method.parameters)
            .filter(([, spec]) => (of === 'merge') === (spec.of === 'merge'))
            .filter(([, spec]) => of !== 'input' || spec.of !== 'other')
            .map(([key, spec]) => [
              key,
              resolve(key, spec, {
                sources: of === 'merge' ? shared : [own as Record<string, never>, ...shared],
                tensor,
                t,
              }),
            ]),
        )
  const stored = copied ? found.slice(0, 1) : found
  return {
    name: storedName(reference, name),
    dims,
    dtype: copied && !isFloatDtype(one!.tensor.dtype) ? one!.tensor.dtype : outDtype(merge, found),
    ...(merge.dtype && { round: merge.dtype }),
    copied,
    ...(isTable && {
      table: tableRows(
        tokens,
        stored.map(({ model }) => model.key),
        base && keyOf(base),
      ),
    }),
    parameters: parametersOf('merge', name),
    inputs: stored.map(({ source, model, own, tensor }) => {
      const isBase =
        merge.method.base !== 'ignored' && base !== undefined && keyOf(base) === model.key
      return {
        tensor,
        isBase,
        parameters: parametersOf(isBase ? 'input' : 'other', own, source.parameters),
        ...loraOf(model, own, tensor),
      }
    }),
  }
}

const headModel = ({ head, base_model, slices }: MergeConfig) =>
  typeof head === 'object' ? head : (base_model ?? slices[0]!.sources[0]!.model)

/** As the reference's files call it. */
function storedName({ tensors }: OpenModel, name: string): string {
  const own = tensors.get(name)
  if (own) return own.name
  // A layer beyond the reference's: named as its first.
  const layer = LAYER.exec(name)
  const first = layer && tensors.get(`${layer[1]}0${layer[3]}`)
  return first ? first.name.replace(/\b(layers|layer|h)\.0\./, `$1.${layer[2]}.`) : name
}

/** The adapter over a tensor, where there is one that fits. */
export function loraOf(model: OpenModel, name: string, { dims }: StoredTensor) {
  const { adapter, files, checkpoint, key } = model
  if (!adapter || files.adapter === undefined || !name.endsWith('.weight')) return {}
  const wanted = bareName(name.slice(0, -'.weight'.length))
  const module = [...adapter.pairs.keys()].find((key) => bareName(key) === wanted)
  if (module === undefined) return {}
  const { in_features: inner, out_features: out } = adapter.pairs.get(module)!
  const turned = isTurned(checkpoint)
  const shape = turned ? [inner, out] : [out, inner]
  if (String(shape) !== String(dims))
    throw invalidRequest(
      `The models do not fit together: the tensor ${name} has the shape [${dims}], and the adapter in ${key} is of [${shape}].`,
      { param: 'models', code: 'models_do_not_fit' },
    )
  return { lora: { file: files.adapter, module, turned } }
}

/** gpt2's files hold [in, out]. */
export const isTurned = ({ format, config }: OpenModel['checkpoint']) =>
  format === 'huggingface' && config.model_type === 'gpt2'

/** `out_dtype`, else `dtype`, else what holds the inputs of all models. */
function outDtype(merge: MergeConfig, found: readonly { tensor: StoredTensor }[]) {
  const told = merge.out_dtype ?? merge.dtype
  if (told) return SAFETENSORS[told]
  const dtypes = new Set(found.map(({ tensor }) => tensor.dtype))
  const [only] = dtypes
  return dtypes.size === 1 && (only === 'BF16' || only === 'F16') ? only : 'F32'
}

function dtypeName(tensors: readonly PlannedTensor[]): MergeDtype {
  const widest = tensors.filter(({ copied }) => !copied).map(({ dtype }) => dtype)
  if (widest.includes('F32') || new Set(widest).size > 1) return 'float32'
  return widest[0] === 'BF16' ? 'bfloat16' : widest[0] === 'F16' ? 'float16' : 'float32'
}

async function fingerprint(plan: object, merge: MergeConfig): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(plan)).update(JSON.stringify(merge))
  const inputs = (plan as MergePlan).tensors.flatMap(({ inputs }) => inputs)
  const files = inputs.flatMap(({ tensor, lora }) => [tensor.file, ...(lora ? [lora.file] : [])])
  for (const file of [...new Set(files)].sort()) {
    const { size, mtimeMs } = await stat(file)
    hash.update(`${file} ${size} ${mtimeMs}`)
  }
  return hash.digest('hex')
}
