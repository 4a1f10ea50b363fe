// A base model on disk: its config, its tensors under Hugging Face names, where its tokenizer lies.

export type StoredDtype = 'F32' | 'F16' | 'BF16' | 'Q8_0' | 'Q4_0' | 'Q4_1' | 'I64' | 'I32' | 'U8'

/** Where one tensor's bytes lie in a file. */
export interface StoredTensor {
  readonly name: string
  readonly dtype: StoredDtype
  readonly dims: readonly number[]
  readonly file: string
  readonly offset: number
  readonly bytes: number
}

/** config.json of a decoder, in Hugging Face's words. Fields of families to come are added as they are needed. */
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
  readonly rms_norm_eps: number
  readonly rope_theta: number
  readonly tie_word_embeddings: boolean
}

export interface Checkpoint {
  /** The model's id: its folder's name, or the .gguf file's name without its ending. */
  readonly id: string
  readonly path: string
  readonly format: 'huggingface' | 'gguf'
  readonly config: ModelConfig
  /** Under Hugging Face names: `model.layers.0.self_attn.q_proj.weight`. */
  readonly tensors: ReadonlyMap<string, StoredTensor>
  /** The model's own Jinja chat template, if it has one. */
  readonly chat_template: string | undefined
}

/** All tensors of a checkpoint as float32, ready to be mapped: external data of an ONNX graph points here. */
export interface MappedWeights {
  /** Absolute path of the folder that holds `file`s. */
  readonly folder: string
  readonly config: ModelConfig
  readonly tensors: ReadonlyMap<string, MappedTensor>
}

export interface MappedTensor {
  readonly name: string
  readonly dims: readonly number[]
  /** File name inside the folder. */
  readonly file: string
  readonly offset: number
  readonly bytes: number
}
