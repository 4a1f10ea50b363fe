// A model as a float32 Hugging Face folder, tokenizer included: what both sides of a comparison read.
//
//   npx tsx bench/peers/float32_folder.ts MODEL OUT
//
// MODEL is a .gguf file or a Hugging Face folder of a rotary decoder. Does nothing where OUT is there already.

import { existsSync } from 'node:fs'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readFolderVocabulary } from '../../src/engine/tokenizer/folder-vocabulary.ts'
import { readGgufVocabulary } from '../../src/engine/tokenizer/gguf-vocabulary.ts'
import { type Checkpoint, openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { type NamedTensor, writeSafetensors } from '../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../src/engine/weights/stored-tensor.ts'

/** config.json as transformers reads it, for llama, mistral, qwen2 and qwen3. */
function configOf({ config }: Checkpoint, tokens: { eos: number | number[]; bos?: number }) {
  const { norm_eps, sliding_windows, rope_scaling, ...rest } = config
  if (sliding_windows || rope_scaling)
    throw new Error(`${config.model_type}: windows and scaled rope are not written here`)
  const name = config.model_type[0]!.toUpperCase() + config.model_type.slice(1)
  return {
    ...rest,
    architectures: [`${name}ForCausalLM`],
    hidden_act: 'silu',
    rms_norm_eps: norm_eps,
    eos_token_id: tokens.eos,
    ...(tokens.bos !== undefined && { bos_token_id: tokens.bos }),
    dtype: 'float32',
    torch_dtype: 'float32',
  }
}

/** Writes the folder, beside its place first, so that a folder that is there is whole. */
export async function writeFloat32Folder(model: string, out: string): Promise<void> {
  if (existsSync(join(out, 'config.json'))) return
  const checkpoint = await openCheckpoint(model)
  const { json, bos_token, eos_token, eos_token_ids } = await (checkpoint.format === 'gguf'
    ? readGgufVocabulary(checkpoint.path)
    : readFolderVocabulary(checkpoint.path))
  const tensors: NamedTensor[] = []
  for (const [name, tensor] of checkpoint.tensors)
    tensors.push({ name, dims: tensor.dims, data: await readTensor(tensor) })
  const bos = json.added_tokens.find(({ content }) => content === bos_token)?.id
  const eos = eos_token_ids.length === 1 ? eos_token_ids[0]! : [...eos_token_ids]
  const tokens = { eos, ...(bos !== undefined && { bos }) }
  const settings = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token,
    eos_token,
    chat_template: checkpoint.chat_template,
    clean_up_tokenization_spaces: false,
  }

  const aside = join(dirname(out), `.${basename(out)}.${process.pid}`)
  await mkdir(aside, { recursive: true })
  const write = (name: string, value: unknown) =>
    writeFile(join(aside, name), `${JSON.stringify(value, null, 2)}\n`)
  await writeFile(join(aside, 'model.safetensors'), writeSafetensors(tensors))
  await write('config.json', configOf(checkpoint, tokens))
  // The peers' reader wants every field of an added token.
  const plain = { single_word: false, lstrip: false, rstrip: false, normalized: false }
  const added_tokens = json.added_tokens.map((token) => ({ ...plain, ...token }))
  await write('tokenizer.json', { version: '1.0', ...json, added_tokens })
  await write('tokenizer_config.json', settings)
  await rename(aside, out)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [model, out] = process.argv.slice(2)
  if (!model || !out) throw new Error('usage: float32_folder.ts MODEL OUT')
  await writeFloat32Folder(model, resolve(out))
}
