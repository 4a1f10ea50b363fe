// What is exported: a base with what was tuned of it, every tensor under its Hugging Face name and read when asked for.
// Folds adapters; knows no format of files.

import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { invalidRequest } from '../../errors.ts'
import { elements } from '../tensor.ts'
import { type AdapterConfig, type LoraPair, readAdapter } from '../weights/adapter.ts'
import { type Checkpoint, openCheckpoint } from '../weights/checkpoint.ts'
import type { ModelConfig } from '../weights/families/family.ts'
import { foldAdapter } from '../weights/fold.ts'
import { familyOf, requiredTensors } from '../weights/model-config.ts'
import { readTensor } from '../weights/stored-tensor.ts'
import { configOf, type EncoderUse, prefixOf, readTunedEncoder } from '../weights/tuned-encoder.ts'
import { openWholeModel } from '../weights/whole-model.ts'

/** Files on this machine: a base, and the first of the two files of what was tuned. */
export interface ExportSource {
  /** A Hugging Face folder or a .gguf file. */
  readonly base: string
  /** `adapter_model.safetensors` with `adapter_config.json` beside it. */
  readonly tuned?: string
}

export interface ExportTensor {
  readonly name: string
  readonly dims: readonly number[]
  /** Files of the family hold [in, out]. */
  readonly transposed: boolean
  /** The values, [out, in] where it is linear; a fresh array every time. */
  read(): Promise<Float32Array>
}

export interface ExportModel {
  readonly base: Checkpoint
  readonly config: ModelConfig
  readonly tensors: readonly ExportTensor[]
  readonly chat_template: string | undefined
  /** Fields that config.json gets instead of the base's. */
  readonly changes: Readonly<Record<string, unknown>>
  /** Of an encoder: what stands before its names inside, and not in files of the bare model. */
  readonly bare: string
  /** Of a tuned encoder: what it answers. */
  readonly use?: EncoderUse
}

/** Opens all files and checks that they fit together; reads no weight of the base. */
export async function openExport({ base: path, tuned }: ExportSource): Promise<ExportModel> {
  const base = await openCheckpoint(path)
  if (tuned === undefined) return assemble(base, {})
  const json = JSON.parse(await readFile(join(dirname(tuned), 'adapter_config.json'), 'utf8'))
  if (base.config.encoder) return openEncoder(base, tuned)
  if (!('peft_type' in json)) return assemble((await openWholeModel(tuned, base)) ?? base, {})
  const { config, pairs, saved } = await readAdapter(tuned)
  return assemble(base, { config, pairs, saved })
}

async function openEncoder(base: Checkpoint, tuned: string): Promise<ExportModel> {
  // The file of a whole model says all by itself; the base is asked for its tokenizer alone.
  const read = await readTunedEncoder(tuned, {
    id: base.id,
    config: base.config,
    tensors: base.tensors,
  })
  const changes = configOf(read.use, base.config)
  const bare = bareOf(read.use, base.config)
  if (read.type === 'adapter') {
    const { config, pairs, saved } = read.adapter
    return { ...assemble(base, { config, pairs, saved }), changes, bare, use: read.use }
  }
  const tensors = [...read.weights.tensors.values()].map((tensor) => ({
    name: tensor.name,
    dims: tensor.dims,
    transposed: false,
    read: () => readTensor({ ...tensor, dtype: 'F32' }),
  }))
  const { config } = read.weights
  return { ...assemble(base, {}), config, tensors, changes, bare, use: read.use }
}

const bareOf = ({ method }: EncoderUse, config: ModelConfig) =>
  method === 'embedding' ? prefixOf(config) : ''

interface Tuned {
  config?: AdapterConfig
  pairs?: ReadonlyMap<string, LoraPair>
  saved?: ReadonlyMap<string, { dims: readonly number[]; data: Float32Array }> | undefined
}

function assemble(base: Checkpoint, { config, pairs = new Map(), saved = new Map() }: Tuned) {
  const wanted = new Map([...requiredTensors(base.config)])
  for (const [name, { dims }] of familyOptional(base)) wanted.set(name, dims)
  const unused = new Set(pairs.keys())
  const tensors: ExportTensor[] = []
  for (const name of new Set([...wanted.keys(), ...saved.keys()])) {
    const whole = saved.get(name)
    const stored = base.tensors.get(name)
    if (!whole && !stored) continue
    const pair = name.endsWith('.weight') ? pairs.get(name.slice(0, -'.weight'.length)) : undefined
    if (pair) unused.delete(name.slice(0, -'.weight'.length))
    tensors.push({
      name,
      dims: whole?.dims ?? stored!.dims,
      transposed: stored?.transposed === true,
      async read() {
        const values = whole ? whole.data.slice() : await readTensor(stored!)
        if (pair && config) foldAdapter(values, pair, config)
        return values
      },
    })
  }
  const [lost] = unused
  if (lost !== undefined)
    throw invalidRequest(`The adapter's ${lost} is no part of the base model.`)
  const { chat_template } = base
  const vocab = saved.get('model.embed_tokens.weight')?.dims[0] ?? base.config.vocab_size
  const result: ExportModel = {
    base,
    config: { ...base.config, vocab_size: vocab },
    tensors,
    chat_template,
    changes: vocab === base.config.vocab_size ? {} : { vocab_size: vocab },
    bare: '',
  }
  return result
}

const familyOptional = ({ config, tensors }: Checkpoint) =>
  [...(familyOf(config).optional?.(config) ?? new Map())].flatMap(([name]) => {
    const found = tensors.get(name)
    return found ? [[name, found] as const] : []
  })

/** What all of its weights take, as numbers. */
export const parametersOf = ({ tensors }: ExportModel): number =>
  tensors.reduce((sum, { dims }) => sum + elements(dims), 0)
