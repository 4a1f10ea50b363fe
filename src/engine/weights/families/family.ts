// What a family of checkpoints must say: how its config.json reads, which tensors it has, and what files call them.
// Knows no file format and computes nothing: that is the models' business.

import type { StoredTensor } from '../stored-tensor.ts'
import type { Fields } from './fields.ts'

/** config.json in Hugging Face's words, as far as the models use it. */
export interface ModelConfig {
  readonly model_type: string
  readonly hidden_size: number
  readonly intermediate_size: number
  readonly num_hidden_layers: number
  readonly num_attention_heads: number
  readonly num_key_value_heads: number
  readonly head_dim: number
  readonly vocab_size: number
  readonly max_position_embeddings: number
  /** `rms_norm_eps`, `layer_norm_epsilon` or `layer_norm_eps`, as the family has it. */
  readonly norm_eps: number
  /** Only where queries and keys are rotated. */
  readonly rope_theta?: number
  readonly rope_scaling?: RopeScaling
  /** By layer: how many tokens a token sees, itself among them; null where it sees all before it. */
  readonly sliding_windows?: readonly (number | null)[]
  readonly attention_bias?: boolean
  readonly mlp_bias?: boolean
  readonly tie_word_embeddings: boolean
  /** Only of encoders; `max_position_embeddings` is the longest text they take. */
  readonly encoder?: EncoderConfig
}

export interface EncoderConfig {
  /** Kinds of tokens, first and second text; 0 where the family knows none. */
  readonly type_vocab_size: number
  /** The position of a text's first token. */
  readonly position_offset: number
  /** Of a checkpoint that was tuned to classify. */
  readonly head?: EncoderHead
}

/** What a classifier answers: one label, several, or one for each token. */
export interface EncoderHead {
  readonly task: 'single' | 'several' | 'tokens'
  /** In the order of the head's outputs. */
  readonly labels: readonly string[]
}

/** How the frequencies of the rotary embedding are changed for long contexts. */
export type RopeScaling =
  | { readonly rope_type: 'linear'; readonly factor: number }
  | {
      readonly rope_type: 'llama3'
      readonly factor: number
      readonly low_freq_factor: number
      readonly high_freq_factor: number
      readonly original_max_position_embeddings: number
    }
  /** One divisor for each frequency, as a GGUF keeps what it was converted from. */
  | { readonly rope_type: 'factors'; readonly factors: readonly number[] }

export type Shapes = Map<string, readonly number[]>

export interface Family {
  /** model_type in config.json, general.architecture in a GGUF. */
  readonly names: readonly string[]
  /** Checks config.json; throws at what would compute wrongly. */
  config(fields: Fields): ModelConfig
  /** Name and shape of every tensor that a model of this config computes with; linear weights are [out, in]. */
  tensors(config: ModelConfig): Shapes
  /** Tensors that are used where a checkpoint has them. */
  optional?(config: ModelConfig): Shapes
  /** The linear layers of a block by their last names: what PEFT calls `all-linear`. */
  readonly linear: readonly string[]
  /** PEFT's name for linear weights that files hold as [in, out]. */
  readonly fan_in_fan_out?: true
  /** A tensor of a safetensors file under its full name, [out, in]; undefined for one that is no weight. */
  stored?(tensor: StoredTensor): StoredTensor | undefined
  /** Where llama.cpp knows the family. */
  readonly gguf?: GgufNames
}

export interface GgufNames {
  /** What config.json would say; `get` reads `<architecture>.<key>`. */
  config(get: (key: string) => unknown): Record<string, unknown>
  /** `token_embd.weight` → `model.embed_tokens.weight`. */
  readonly names: Readonly<Record<string, string>>
  /** Of `blk.<i>.<name>`, and where they go: `<layer>.<i>.<name>`. */
  readonly layer: string
  readonly layers: Readonly<Record<string, string>>
  /** Rows of q and k have the halves of each head interleaved. */
  readonly interleaved?: true
}
