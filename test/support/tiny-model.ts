// A llama of two layers with random weights, laid out as Hugging Face does: what unit tests train and ask.

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { byteLevelAlphabet } from '../../src/engine/tokenizer/token-bytes.ts'
import { writeSafetensors } from '../../src/engine/weights/safetensors.ts'
import { randomTensor } from './gradient.ts'

const config = {
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

/** Writes the model to `folder`; one token a byte, `<s>` and `</s>`. The same every time. */
export async function writeTinyModel(folder: string, { chat = false } = {}): Promise<string> {
  await mkdir(folder, { recursive: true })
  const { hidden_size: D, intermediate_size: F, num_key_value_heads: G } = config
  const K = D / config.num_attention_heads
  const shapes: [string, number[]][] = [['model.embed_tokens.weight', [config.vocab_size, D]]]
  for (let i = 0; i < config.num_hidden_layers; i++)
    shapes.push(
      ...(
        [
          ['self_attn.q_proj', [D, D]],
          ['self_attn.k_proj', [G * K, D]],
          ['self_attn.v_proj', [G * K, D]],
          ['self_attn.o_proj', [D, D]],
          ['mlp.gate_proj', [F, D]],
          ['mlp.up_proj', [F, D]],
          ['mlp.down_proj', [D, F]],
          ['input_layernorm', [D]],
          ['post_attention_layernorm', [D]],
        ] as const
      ).map(([name, dims]): [string, number[]] => [`model.layers.${i}.${name}.weight`, [...dims]]),
    )
  shapes.push(['model.norm.weight', [D]])
  const tensors = shapes.map(([name, dims], seed) => ({
    name,
    dims,
    // Norms around 1, all else as large as a trained model's.
    data: randomTensor(dims, seed, dims.length === 1 ? [0.8, 1.2] : [-0.4, 0.4]).data,
  }))

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
  await writeFile(join(folder, 'model.safetensors'), writeSafetensors(tensors))
  return folder
}
