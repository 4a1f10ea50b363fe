// A tuned encoder as files: a PEFT folder with its head, or a whole Hugging Face model. What it is for stands in it.

import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { invalidRequest } from '../../errors.ts'
import { type Adapter, readAdapter, writeAdapter, writeAdapterConfig } from './adapter.ts'
import { type Checkpoint, type MappedTensor, type MappedWeights, readJson } from './checkpoint.ts'
import type { EncoderHead, ModelConfig } from './families/family.ts'
import { readMapped } from './mapped-tensor.ts'
import { familyOf, parseModelConfig } from './model-config.ts'
import { type NamedTensor, readSafetensorsHeader, writeSafetensors } from './safetensors.ts'

/** What an encoder answers: labels, or a vector for each text. */
export type EncoderUse =
  | ({ readonly method: 'classification' } & EncoderHead)
  | { readonly method: 'embedding' }

/** A tensor that was trained whole; with `rows`, those of a larger table. */
export interface WholeTensor extends NamedTensor {
  readonly rows?: Int32Array
}

export interface Described {
  readonly use: EncoderUse
  readonly checkpoint: Pick<Checkpoint, 'id' | 'path'>
  readonly config: ModelConfig
}

/** How Hugging Face's classes of a family begin, and the prefix under which they keep the encoder. */
const CLASSES: Readonly<Record<string, { name: string; prefix: string }>> = {
  bert: { name: 'Bert', prefix: 'bert.' },
  distilbert: { name: 'DistilBert', prefix: 'distilbert.' },
  roberta: { name: 'Roberta', prefix: 'roberta.' },
}

const classOf = ({ model_type }: ModelConfig) => CLASSES[model_type]!

/** Under which Hugging Face's classes of the family keep the encoder: `bert.` */
export const prefixOf = (config: ModelConfig): string => classOf(config).prefix

/** PEFT's two files; the head lies among the matrices as one of `modules_to_save`. */
export function writeTunedAdapter(
  { use, config }: Described,
  adapter: Adapter,
  head: readonly NamedTensor[],
) {
  const { prefix } = classOf(config)
  const bare = (name: string) => (name.startsWith(prefix) ? name.slice(prefix.length) : name)
  // An embedding model is the encoder itself; a classifier holds it under its name.
  const named = use.method === 'embedding' ? bare : (name: string) => name
  const modules = [...new Set(head.map(({ name }) => bare(name).split('.')[0]!))]
  const described: Adapter = {
    config: {
      ...adapter.config,
      task_type: taskType(use),
      ...(modules.length > 0 && { modules_to_save: modules }),
      ...(use.method === 'embedding' && { exclude_modules: ['pooler.dense'] }),
    },
    pairs: new Map([...adapter.pairs].map(([name, pair]) => [named(name), pair])),
    saved: new Map(head.map(({ name, ...tensor }) => [name, tensor])),
    metadata: { luthier: JSON.stringify(use) },
  }
  return { adapter: writeAdapter(described), adapter_config: writeAdapterConfig(described.config) }
}

function taskType(use: EncoderUse): string {
  if (use.method === 'embedding') return 'FEATURE_EXTRACTION'
  return use.task === 'tokens' ? 'TOKEN_CLS' : 'SEQ_CLS'
}

export interface TunedModel extends Described {
  readonly base: MappedWeights
  /** The model that training went on from, if it was not the base. */
  readonly initial: string | undefined
  /** What weight decay has left of rows that were not trained. */
  readonly kept: number
}

/** model.safetensors and config.json of a whole model. */
export async function writeTunedModel(
  { use, checkpoint, config, base, initial, kept }: TunedModel,
  trained: readonly WholeTensor[],
) {
  const { prefix } = classOf(config)
  const from = initial === undefined ? base.tensors : await tunedTensors(initial, config)
  const tensors = new Map<string, NamedTensor>()
  for (const [name, tensor] of base.tensors)
    if (name.startsWith(prefix) && !trained.some((t) => t.name === name))
      tensors.set(name, {
        name,
        dims: tensor.dims,
        data: await readMapped(from.get(name) ?? tensor),
      })
  for (const { rows, ...tensor } of trained) {
    const { name } = tensor
    const table = rows && from.get(name)
    if (!table) {
      tensors.set(name, tensor)
      continue
    }
    const data = (await readMapped(table)).map((x) => x * kept)
    const width = table.dims[1]!
    for (const [i, row] of rows.entries())
      data.set(tensor.data.subarray(i * width, (i + 1) * width), row * width)
    tensors.set(name, { name, dims: table.dims, data })
  }
  const raw = (await readJson(checkpoint.path, 'config.json')) as Record<string, unknown>
  const bare = use.method === 'embedding' ? prefix.length : 0
  return {
    adapter: writeSafetensors(
      [...tensors.values()].map((t) => ({ ...t, name: t.name.slice(bare) })),
    ),
    adapter_config: `${JSON.stringify({ ...raw, ...configOf(use, config) }, null, 2)}\n`,
  }
}

/** What config.json says of the class, the labels and the dtype of a tuned encoder. */
export function configOf(use: EncoderUse, config: ModelConfig): Record<string, unknown> {
  const { name } = classOf(config)
  const dtype = { dtype: 'float32', torch_dtype: 'float32' }
  if (use.method === 'embedding') return { ...dtype, architectures: [`${name}Model`] }
  const kind = use.task === 'tokens' ? 'ForTokenClassification' : 'ForSequenceClassification'
  return {
    ...dtype,
    architectures: [`${name}${kind}`],
    id2label: Object.fromEntries(use.labels.map((label, id) => [id, label])),
    label2id: Object.fromEntries(use.labels.map((label, id) => [label, id])),
    ...(use.task !== 'tokens' && {
      problem_type:
        use.task === 'several' ? 'multi_label_classification' : 'single_label_classification',
    }),
  }
}

/** What was tuned, read from its first file with the second beside it. */
export type TunedEncoder =
  | { readonly type: 'adapter'; readonly use: EncoderUse; readonly adapter: Adapter }
  | { readonly type: 'model'; readonly use: EncoderUse; readonly weights: MappedWeights }

/** Reads either kind over its base. */
export async function readTunedEncoder(file: string, base: MappedWeights): Promise<TunedEncoder> {
  const json = JSON.parse(await readFile(join(dirname(file), 'adapter_config.json'), 'utf8'))
  if (json.peft_type === undefined) {
    const tuned = parseModelConfig(json, 'config.json')
    const head = tuned.encoder?.head
    return {
      type: 'model',
      use: head ? { method: 'classification', ...head } : { method: 'embedding' },
      weights: { ...base, config: tuned, tensors: await tunedTensors(file, tuned) },
    }
  }
  const adapter = await readAdapter(file)
  const { prefix } = classOf(base.config)
  const full = (name: string) => (name.startsWith(prefix) ? name : `${prefix}${name}`)
  return {
    type: 'adapter',
    use: useOf(adapter),
    adapter: { ...adapter, pairs: new Map([...adapter.pairs].map(([n, pair]) => [full(n), pair])) },
  }
}

/** What an encoder that was tuned by an adapter answers; throws where the adapter does not say it. */
export function useOf({ metadata, config }: Adapter): EncoderUse {
  if (metadata?.luthier !== undefined) return JSON.parse(metadata.luthier) as EncoderUse
  if (config.task_type === 'FEATURE_EXTRACTION') return { method: 'embedding' }
  throw invalidRequest('The adapter does not say what its labels are.', { param: 'model' })
}

/** The tensors of a whole model's file under their full names. */
async function tunedTensors(
  file: string,
  config: ModelConfig,
): Promise<ReadonlyMap<string, MappedTensor>> {
  const { stored } = familyOf(config)
  const { tensors } = await readSafetensorsHeader(file)
  return new Map(
    [...tensors.values()].flatMap((tensor) => {
      const named = stored ? stored(tensor) : tensor
      return named ? [[named.name, named] as const] : []
    }),
  )
}

/** Throws where a job would go on from a model that answers something else. */
export function sameUse(a: EncoderUse, b: EncoderUse): void {
  if (JSON.stringify(a) === JSON.stringify(b)) return
  throw invalidRequest(
    'The model was tuned for other labels or another method than the job, which cannot go on from it.',
    { param: 'model', code: 'invalid_value' },
  )
}
