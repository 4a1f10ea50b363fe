// A llama with random weights as a Hugging Face folder: what there is to train where no model can be had.

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { normal } from '../random.ts'
import { elements } from '../tensor.ts'
import type { TokenizerJson } from '../tokenizer/vocabulary.ts'
import { parseModelConfig, requiredTensors } from '../weights/model-config.ts'
import { writeSafetensors } from '../weights/safetensors.ts'

export interface FreshLlama {
  /** Fields of config.json that say how large it is. */
  readonly size: {
    readonly hidden_size: number
    readonly intermediate_size: number
    readonly num_hidden_layers: number
    readonly num_attention_heads: number
    readonly num_key_value_heads: number
    readonly max_position_embeddings: number
  }
  readonly tokenizer: TokenizerJson
  readonly bos_token: string
  readonly eos_token: string
  readonly chat_template: string
  readonly seed: number
}

/** As transformers initialises a llama. */
const DEVIATION = 0.02

/** Writes the model to `folder` and says how many parameters it has. The same request gives the same bytes. */
export async function writeFreshLlama(folder: string, llama: FreshLlama): Promise<number> {
  const { size, tokenizer, bos_token, eos_token, chat_template, seed } = llama
  const idOf = (token: string) => tokenizer.added_tokens.find((t) => t.content === token)?.id
  const json = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    ...size,
    vocab_size: Object.keys(tokenizer.model.vocab).length + tokenizer.added_tokens.length,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    hidden_act: 'silu',
    tie_word_embeddings: true,
    bos_token_id: idOf(bos_token),
    eos_token_id: idOf(eos_token),
    dtype: 'float32',
    torch_dtype: 'float32',
  }
  const shapes = requiredTensors(parseModelConfig(json, 'config.json'))
  const tensors = [...shapes].map(([name, dims], choice) => ({
    name,
    dims,
    data: Float32Array.from({ length: elements(dims) }, (_, i) =>
      dims.length > 1 ? DEVIATION * normal(seed, choice, i) : 1,
    ),
  }))

  await mkdir(folder, { recursive: true })
  const write = (name: string, content: unknown) =>
    writeFile(join(folder, name), `${JSON.stringify(content, null, 1)}\n`)
  await writeFile(join(folder, 'model.safetensors'), writeSafetensors(tensors))
  await write('tokenizer.json', tokenizer)
  await write('tokenizer_config.json', { bos_token, eos_token, chat_template })
  await write('config.json', json)
  return tensors.reduce((sum, { data }) => sum + data.length, 0)
}
