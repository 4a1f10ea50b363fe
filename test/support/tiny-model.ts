// A llama, or a model of another family, of two layers with random weights, laid out as Hugging Face does: what unit tests train and ask.

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { byteLevelAlphabet } from '../../src/engine/tokenizer/token-bytes.ts'
import {
  familyOf,
  parseModelConfig,
  requiredTensors,
} from '../../src/engine/weights/model-config.ts'
import { type NamedTensor, writeSafetensors } from '../../src/engine/weights/safetensors.ts'
import { randomTensor } from './gradient.ts'

const LLAMA = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 258,
  max_position_embeddings: 96,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: 'silu',
  tie_word_embeddings: true,
  bos_token_id: 256,
  eos_token_id: 257,
}

/** Turns as `<role>text</s>`; without a generation prompt a chat ends after its last turn. */
const CHAT_TEMPLATE =
  "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"

export interface TinyModelOptions {
  /** With a chat template. */
  chat?: boolean
  /** Fields of config.json beside or instead of the llama's: another family. */
  config?: Record<string, unknown>
  /** Files that the tensors are spread over, with an index. */
  shards?: number
}

/** Writes the model to `folder`; one token a byte, `<s>` and `</s>`. The same every time. */
export async function writeTinyModel(
  folder: string,
  { chat = false, config: changes = {}, shards = 1 }: TinyModelOptions = {},
): Promise<string> {
  await mkdir(folder, { recursive: true })
  const config = { ...LLAMA, ...changes }
  const tensors = randomTensors(config)
  if (shards === 1) await writeFile(join(folder, 'model.safetensors'), writeSafetensors(tensors))
  else await writeShards(folder, tensors, shards)

  const alphabet = byteLevelAlphabet()
  const special = (id: number, content: string) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [special(256, '<s>'), special(257, '</s>')],
    normalizer: null,
    pre_tokenizer: {
      type: 'ByteLevel',
      add_prefix_space: false,
      trim_offsets: true,
      use_regex: true,
    },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      vocab: Object.fromEntries(alphabet.map((letter, byte) => [letter, byte])),
      merges: [],
    },
  }
  const json = (name: string, value: unknown) =>
    writeFile(join(folder, name), JSON.stringify(value))
  await json('config.json', config)
  await json('tokenizer.json', tokenizer)
  await json('tokenizer_config.json', {
    bos_token: '<s>',
    eos_token: '</s>',
    ...(chat && { chat_template: CHAT_TEMPLATE }),
  })
  return folder
}

function randomTensors(json: Record<string, unknown>): NamedTensor[] {
  const config = parseModelConfig(json, 'tiny')
  const { fan_in_fan_out, linear } = familyOf(config)
  return [...requiredTensors(config)].map(([name, dims], seed) => {
    const turned = fan_in_fan_out && linear.some((layer) => name.endsWith(`.${layer}.weight`))
    // Norms around 1, biases around 0, all else as large as a trained model's.
    const range = dims.length > 1 ? 0.4 : 0.2
    const middle = dims.length === 1 && !name.endsWith('.bias') ? 1 : 0
    const { data } = randomTensor(dims, seed, [middle - range, middle + range])
    return { name, dims: turned ? [...dims].reverse() : dims, data }
  })
}

async function writeShards(folder: string, tensors: readonly NamedTensor[], count: number) {
  const weight_map: Record<string, string> = {}
  for (let i = 0; i < count; i++) {
    const number = (n: number) => String(n).padStart(5, '0')
    const file = `model-${number(i + 1)}-of-${number(count)}.safetensors`
    const part = tensors.filter((_, k) => k % count === i)
    for (const { name } of part) weight_map[name] = file
    await writeFile(join(folder, file), writeSafetensors(part))
  }
  const index = { metadata: {}, weight_map }
  await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify(index))
}
