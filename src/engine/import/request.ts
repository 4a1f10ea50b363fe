// What a model from outside is asked, and what the thread that looks at it says.

export const IMPORT_KINDS = ['adapter', 'folder', 'gguf'] as const
/** A PEFT adapter, a Hugging Face folder, or a `.gguf` file. */
export type ImportKind = (typeof IMPORT_KINDS)[number]

export interface ImportRequest {
  /** What is looked at: a folder of plain files, or a `.gguf` file. */
  readonly path: string
  /** The model that an adapter is for: a Hugging Face folder or a `.gguf` file. */
  readonly base?: string
}

/** How far the weights are read, then what was found. */
export type ImportEvent =
  | { readonly type: 'reading'; readonly tensors: number; readonly of: number }
  | {
      readonly type: 'checked'
      readonly kind: ImportKind
      readonly tensors: number
      readonly parameters: number
      /** The files that the model is made of; what lies beside them does not count. */
      readonly files: readonly string[]
    }

export const ADAPTER_WEIGHTS = 'adapter_model.safetensors'
export const ADAPTER_CONFIG = 'adapter_config.json'
