// What the inference thread is asked, and what it answers: messages or text in, text out.

import type { GrammarSource } from '../grammar/request.ts'
import type { Evidence, Verdict } from '../parity/parity.ts'
import type { ToolSyntax, ToolUse } from '../tools/syntax.ts'
import type { EncodeEvent, EncodeRequest } from './encode-request.ts'
import type { PrefixUsage } from './prefix-cache.ts'

export interface ChatMessage {
  role: string
  content: string
  name?: string
  tool_calls?: readonly unknown[]
  tool_call_id?: string
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
  /** Only the k most probable; absent or below 1: all. */
  top_k?: number
  /** Only tokens at least this many times as probable as the most probable one. */
  min_p?: number
  /** What each token that was generated loses, once, and once for every time. */
  presence_penalty?: number
  frequency_penalty?: number
  /** Divides positive logits and multiplies negative ones of tokens in the prompt or the answer. */
  repetition_penalty?: number
  /** Added to the logits of tokens, by id. */
  logit_bias?: Readonly<Record<string, number>>
}

export interface GenerateRequest {
  type: 'generate'
  target: Target
  prompt:
    | { messages: ChatMessage[]; tools?: readonly unknown[] }
    | { text: string }
    | { tokens: number[] }
  /** New tokens at most; absent: up to the end of the context. */
  max_tokens?: number
  stop: string[]
  n: number
  sampling: Sampling
  /** Tells the log-probability of each token, and of this many of the most probable ones at its place. */
  logprobs?: number
  /** Gives the prompt back as `echo` events, with log-probabilities if those are told. */
  echo?: boolean
  /** The same bytes whatever else is being answered: decoded by itself. */
  batch_invariant?: boolean
  /** What every answer is held to. */
  grammar?: GrammarSource
  /** Which tools answers may or must call, in the model's own manner. */
  tool_use?: ToolUse
  /** Nobody waits for it: its prompt is read while no other waits. */
  low_priority?: boolean
}

/** A token at a place, and how probable the model found it there: before penalties, bias, temperature and truncation. */
export interface TokenLogprob {
  /** Its text; the name of a special token; `\\xf0\\x9f` for bytes that are no text by themselves. */
  token: string
  /** What it adds to the text; null for a special token, which adds nothing. */
  bytes: number[] | null
  logprob: number
}

/** A token of an answer or a prompt. The first of a prompt has no probability. */
export interface ListedToken<P extends number | null = number>
  extends Omit<TokenLogprob, 'logprob'> {
  logprob: P
  /** Where it begins in the text of the answer or of the prompt, in code points. */
  offset: number
  /** The most probable tokens at its place, the most probable first. */
  top: TokenLogprob[]
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

/** Gives one model back, and its files: it will not be asked again. */
export interface ForgetRequest {
  type: 'forget'
  target: Target
}

/** Holds what training says of a model against what is served. */
export interface CertifyRequest {
  type: 'certify'
  target: Target
  evidence: Evidence
}

/** What models that go on with text are asked. */
export type DecodeRequest = GenerateRequest | LoadRequest | UnloadRequest | ForgetRequest

/** What the inference thread is spawned with. */
export interface InferThreadData {
  /** That its sessions compute with; absent: all of this machine. */
  threads?: number | undefined
  /** Of the frozen base models; absent: auto. */
  precision?: ServedPrecision | undefined
  /** What adapters may take together; absent: a sixteenth of the machine. */
  adapterBytes?: number | undefined
  /** Whether tokens are guessed where that is faster; absent: yes. */
  speculate?: boolean | undefined
}

/** `auto`: four bits where the file has them already, else as it is. */
export type ServedPrecision = 'auto' | 'fp32' | 'int8' | 'int4'

/** What is going on and what is kept, for whoever watches. */
export interface InsideRequest {
  type: 'inside'
}

export type InferThreadRequest = DecodeRequest | EncodeRequest | CertifyRequest | InsideRequest

export type InferThreadEvent = InferEvent | EncodeEvent | CertifiedEvent | InsideEvent

/** Counts since the thread began, but for the first line. */
export interface Inside {
  running: number
  waiting: number
  adapters: { adapters: number; bytes: number }
  prefixes: PrefixUsage
  /** Steps of decoding, and rows of all of them. */
  decode: { steps: number; rows: number; width: number }
  /** Tokens that were guessed, and those of them that the sampler drew. */
  guesses: { drafted: number; accepted: number }
}

export type InsideEvent = { type: 'inside' } & Inside

export interface CertifiedEvent {
  type: 'certified'
  verdict: Verdict
}

export type InferEvent =
  | { type: 'ready' }
  /** Once, before any text. */
  | { type: 'prompt'; prompt_tokens: number; tool_syntax?: ToolSyntax }
  /** Once a choice, before its text, where the request wants it. */
  | { type: 'echo'; index: number; text: string; tokens?: ListedToken<number | null>[] }
  /**
   * Whole code points only, nothing that may still become a stop text. `tokens` are those whose text is now
   * given: not the one that ends the answer, none that a stop text took away wholly.
   */
  | { type: 'delta'; index: number; text: string; tokens?: ListedToken[] }
  | {
      type: 'finish'
      index: number
      finish_reason: 'stop' | 'length'
      completion_tokens: number
      /** Of the prompt, whose keys and values were there already; the first choice alone tells it. */
      cached_tokens?: number
      /** How long it waited until its prompt was begun; the first choice alone tells it. */
      queue_seconds?: number
      /** Of all completion tokens, where log-probabilities are told. */
      mean_logprob?: number
      /** The end token, where it ended the answer and log-probabilities are told. */
      end_token?: ListedToken
    }

// A request that cannot be answered throws ApiError: `context_length_exceeded` (param `messages` or
// `prompt`, or `max_tokens`), no token of the model (param `prompt` or `logit_bias`), `chat_template_missing` (param `model`), a template that refuses the
// messages (param `messages`).
