// What the inference thread is asked, and what it answers: messages or text in, text out.

export interface ChatMessage {
  role: string
  content: string
  name?: string
}

/** Which weights answer: a base model, and an adapter over it or none. */
export interface Target {
  /** A Hugging Face folder or a .gguf file. */
  model: string
  /** Folder for converted weights, shared by all threads and processes. */
  cache: string
  /** Absolute path of an `adapter_model.safetensors`, its `adapter_config.json` beside it. */
  adapter?: string
}

export interface Sampling {
  /** 0 is greedy. */
  temperature: number
  top_p: number
  /** Sampling draws from a counter of (seed, choice, position), whatever the batch. */
  seed: number
}

export interface GenerateRequest {
  type: 'generate'
  target: Target
  prompt: { messages: ChatMessage[] } | { text: string } | { tokens: number[] }
  /** New tokens at most; absent: up to the end of the context. */
  max_tokens?: number
  stop: string[]
  n: number
  sampling: Sampling
}

/** Makes the target resident, so that the first request does not wait. */
export interface LoadRequest {
  type: 'load'
  target: Target
}

/** Gives the memory of every session back; requests that come later load again. */
export interface UnloadRequest {
  type: 'unload'
}

export type InferThreadRequest = GenerateRequest | LoadRequest | UnloadRequest

export type InferEvent =
  | { type: 'ready' }
  /** Once, before any text. */
  | { type: 'prompt'; prompt_tokens: number }
  /** Whole code points only, nothing that may still become a stop text. */
  | { type: 'delta'; index: number; text: string }
  | { type: 'finish'; index: number; finish_reason: 'stop' | 'length'; completion_tokens: number }

// A request that cannot be answered throws ApiError: `context_length_exceeded` (param `messages` or
// `prompt`, or `max_tokens`), `chat_template_missing` (param `model`), a template that refuses the
// messages (param `messages`).
