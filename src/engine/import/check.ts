// A model from outside, looked at whole before anybody uses it: config, tokenizer, template, every shape, every value.
// Reads; writes nothing.

import { existsSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { flatFromAdapter, loraConfigOf, loraLayout } from '../models/adapters.ts'
import { elements } from '../tensor.ts'
import { parseTemplate } from '../tokenizer/chat-template.ts'
import { openTokenizer } from '../tokenizer/tokenizer.ts'
import { type Adapter, readAdapter } from '../weights/adapter.ts'
import { type Checkpoint, openCheckpoint, readJson } from '../weights/checkpoint.ts'
import { FOLDER_TEXTS } from '../weights/folder-files.ts'
import { optionalTensors, requiredTensors } from '../weights/model-config.ts'
import { readTensorChunks, type StoredTensor } from '../weights/stored-tensor.ts'
import { readTunedEncoder } from '../weights/tuned-encoder.ts'
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, type ImportEvent, type ImportRequest } from './request.ts'

/** Throws the first thing that is wrong, naming file and tensor. */
export async function* checkImport(
  { path, base }: ImportRequest,
  signal?: AbortSignal,
): AsyncGenerator<ImportEvent, void, undefined> {
  const folder = (await stat(path)).isDirectory()
  if (folder && existsSync(join(path, ADAPTER_CONFIG))) return yield* checkAdapter(path, base)
  const checkpoint = await openCheckpoint(path)
  refuseStrangers(checkpoint)
  await checkTexts(checkpoint)
  let read = 0
  const all = [...checkpoint.tensors.values()]
  for (const tensor of all) {
    signal?.throwIfAborted()
    await checkValues(tensor)
    read++
    if (read % 16 === 0) yield { type: 'reading', tensors: read, of: all.length }
  }
  yield {
    type: 'checked',
    kind: folder ? 'folder' : 'gguf',
    tensors: all.length,
    parameters: sum(all.map(({ dims }) => elements(dims))),
    files: folder ? filesOf(checkpoint) : [basename(path)],
  }
}

/** What a folder's model reads: the weights that count, and the texts beside them. */
function filesOf({ path, tensors }: Checkpoint): string[] {
  const weights = new Set([...tensors.values()].map(({ file }) => basename(file)))
  if (!weights.has('model.safetensors')) weights.add('model.safetensors.index.json')
  const texts = ['config.json', ...FOLDER_TEXTS].filter((name) => existsSync(join(path, name)))
  return [...texts, ...weights]
}

/** Buffers that older files hold, and a head that is the embeddings once more. */
const HARMLESS = /(^|\.)(rotary_emb\.inv_freq|masked_bias|attn\.bias|lm_head\.weight)$/

/** A tensor that the family does not have is a bias or an expert: without it the model computes otherwise. */
function refuseStrangers({ config, tensors }: Checkpoint): void {
  // An encoder's file may hold heads of other tasks, which nobody asks.
  if (config.encoder) return
  const known = new Set([...requiredTensors(config).keys(), ...optionalTensors(config).keys()])
  for (const { name, file } of tensors.values())
    if (!known.has(name) && !HARMLESS.test(name))
      throw new Error(
        `${basename(file)}: tensor ${name} is not one that ${config.model_type} has here`,
      )
}

async function checkTexts(checkpoint: Checkpoint): Promise<void> {
  const { format, path, config, chat_template } = checkpoint
  if (format === 'huggingface')
    for (const name of FOLDER_TEXTS)
      if (name.endsWith('.json') && existsSync(join(path, name)) && name !== 'tokenizer.json')
        if (typeof (await readJson(path, name)) !== 'object')
          throw new Error(`${name}: not a JSON object`)
  const tokenizer = await openTokenizer(checkpoint)
  if (tokenizer.vocab_size > config.vocab_size)
    throw new Error(
      `the tokenizer has ${tokenizer.vocab_size} tokens, the weights only ${config.vocab_size}`,
    )
  const ids = tokenizer.encode('Once upon a time, naïve 模型.')
  if (ids.some((id) => !(id >= 0 && id < config.vocab_size)))
    throw new Error(`the tokenizer gives ids beyond the ${config.vocab_size} of the weights`)
  if (chat_template !== undefined) parseTemplate(chat_template)
}

/** One that is no number, or has no end, makes every answer nothing. */
async function checkValues(tensor: StoredTensor): Promise<void> {
  let at = 0
  for await (const chunk of readTensorChunks(tensor)) {
    for (let i = 0; i < chunk.length; i++)
      if (!Number.isFinite(chunk[i]))
        throw new Error(
          `${basename(tensor.file)}: tensor ${tensor.name} holds ${chunk[i]}, value ${at + i} of ${elements(tensor.dims)}`,
        )
    at += chunk.length
  }
}

async function* checkAdapter(
  folder: string,
  basePath: string | undefined,
): AsyncGenerator<ImportEvent, void, undefined> {
  const file = join(folder, ADAPTER_WEIGHTS)
  if (!existsSync(file))
    throw new Error(
      `${ADAPTER_WEIGHTS} is missing${existsSync(join(folder, 'adapter_model.bin')) ? ': adapter_model.bin is a pickle, which is not read' : ''}`,
    )
  if (basePath === undefined) throw new Error('an adapter needs its base model')
  const json = JSON.parse(await readFile(join(folder, ADAPTER_CONFIG), 'utf8'))
  if (json?.peft_type === undefined) throw new Error(`${ADAPTER_CONFIG}: peft_type is missing`)
  const base = await openCheckpoint(basePath)
  const adapter = await readAdapter(file)
  if (base.config.encoder) await readTunedEncoder(file, { ...base, tensors: new Map() })
  else fitDecoder(base, adapter)
  const values: [string, Float32Array][] = []
  for (const [name, { a, b, magnitude }] of adapter.pairs)
    values.push([`${name}.lora_A`, a], [`${name}.lora_B`, b], [name, magnitude ?? a])
  for (const [name, { data }] of adapter.saved ?? []) values.push([name, data])
  for (const [name, data] of values) {
    const at = data.findIndex((x) => !Number.isFinite(x))
    if (at >= 0)
      throw new Error(
        `${ADAPTER_WEIGHTS}: tensor ${name} holds ${data[at]}, value ${at} of ${data.length}`,
      )
  }
  yield {
    type: 'checked',
    kind: 'adapter',
    tensors: values.length,
    parameters: sum(values.map(([, { length }]) => length)),
    files: [ADAPTER_CONFIG, ADAPTER_WEIGHTS],
  }
}

/** Every matrix must have its place, and every place its matrix: so it is served, and so it is tuned again. */
function fitDecoder(base: Checkpoint, adapter: Adapter): void {
  const [saved] = adapter.saved?.keys() ?? []
  if (saved !== undefined)
    throw new Error(
      `${ADAPTER_WEIGHTS}: ${saved} was trained whole (modules_to_save), which is not served beside a base; merge it into the base and import the folder`,
    )
  const tensors = new Map(
    [...requiredTensors(base.config)].map(([name, dims]) => [name, { name, dims }]),
  )
  // Only names and shapes are asked for.
  const weights = { id: base.id, config: base.config, tensors: tensors as never }
  flatFromAdapter(loraLayout(weights, loraConfigOf(adapter)), adapter)
}

const sum = (xs: readonly number[]) => xs.reduce((a, b) => a + b, 0)
