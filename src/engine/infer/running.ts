// A choice that is being answered, from its prompt to its last event. Knows no session.

import type { Constraint } from '../grammar/constraints.ts'
import { type EchoedPrompt, echoOf } from './describe.ts'
import type { KvCache } from './kv-cache.ts'
import type { GenerateRequest, InferEvent, ListedToken } from './request.ts'
import type { ResidentTarget } from './residents.ts'
import { createSequence, type Sequence } from './sequence.ts'
import { type Guessing, newGuessing } from './speculation.ts'

/** A sequence under way: where it lies in its target's cache, and who waits for its text. */
export interface Running {
  readonly sequence: Sequence
  readonly target: ResidentTarget
  /** Decoded by itself, so that its bytes depend on nobody else. */
  readonly invariant: boolean
  slot: number | undefined
  /** While its prompt is read: a cache of its own, which becomes its slot at the end. */
  reading: { readonly cache: KvCache; read: number } | undefined
  /** What a grammar or the like allows next; its owner changes it. */
  readonly constraint: Constraint | undefined
  /** What the choices of one request have in common. */
  readonly shared: SharedPrompt
  /** How well tokens could be guessed so far. */
  readonly guessing: Guessing
  /** The prompt has no text, so that the first token begins one. */
  readonly bare: boolean
  /** The sum over the answer so far, and the token that ended it; where log-probabilities are told. */
  logprob: number
  end_token: ListedToken | undefined
  /** Finished, failed or aborted: it gets no more tokens. */
  gone: boolean
  readonly emit: (event: InferEvent | { error: unknown }) => void
}

/** The prompt of several choices: computed for the first, copied for those that come while it is still there. */
export interface SharedPrompt {
  readonly choices: Running[]
  /** The logits after it. */
  logits: Float32Array | undefined
  /** How many alternatives each token is told with; absent: no log-probabilities. */
  readonly top: number | undefined
  /** Prompt tokens that were not computed anew. */
  cached: number
  /** When it was queued, and when its prompt was begun, in milliseconds. */
  readonly queued: number
  begun: number | undefined
  /** Told before the first token; its log-probabilities come with the first choice's prefill. */
  echo: EchoedPrompt | undefined
}

export interface Answering {
  readonly prompt: readonly number[]
  readonly max_tokens: number
  readonly target: ResidentTarget
  /** One a choice, or none. */
  readonly constraints: readonly Constraint[] | undefined
  readonly emit: Running['emit']
}

/** The choices of a request before their prompt is read, and what they share. `place` is where each is decoded. */
export function choicesOf(
  request: GenerateRequest,
  { prompt, max_tokens, target, constraints, emit }: Answering,
  place: (target: ResidentTarget) => ResidentTarget,
): SharedPrompt {
  const { echo, logprobs, batch_invariant = false, n, sampling, stop } = request
  const { tokenizer } = target
  const shared: SharedPrompt = {
    choices: [],
    logits: undefined,
    top: logprobs,
    cached: 0,
    queued: performance.now(),
    begun: undefined,
    echo: echo ? echoOf(request.prompt, prompt, tokenizer) : undefined,
  }
  const { eos_token_ids } = tokenizer
  for (let index = 0; index < n; index++)
    shared.choices.push({
      sequence: createSequence({ index, prompt, sampling, max_tokens, stop, eos_token_ids }),
      target: place(target),
      invariant: batch_invariant,
      slot: undefined,
      reading: undefined,
      shared,
      constraint: constraints?.[index],
      bare: prompt.every((id) => tokenizer.isSpecial(id)),
      guessing: newGuessing(),
      logprob: 0,
      end_token: undefined,
      gone: false,
      emit,
    })
  return shared
}

/** The prompt's own log-probabilities are wanted. */
export const isScored = ({ echo, top }: SharedPrompt): boolean =>
  echo !== undefined && top !== undefined

/** Gives every choice the prompt, once; before any of them has a token. */
export function tellEcho(shared: SharedPrompt): void {
  const { text, tokens } = shared.echo!
  shared.echo = undefined
  for (const { sequence, emit } of shared.choices)
    emit({
      type: 'echo',
      index: sequence.index,
      text,
      ...(shared.top !== undefined && { tokens }),
    })
}

export function finishOf({ sequence, shared, logprob, end_token }: Running): InferEvent {
  const { index, finish_reason, tokens } = sequence
  return {
    type: 'finish',
    index,
    finish_reason: finish_reason!,
    completion_tokens: tokens.length,
    ...(index === 0 && {
      cached_tokens: shared.cached,
      queue_seconds: ((shared.begun ?? shared.queued) - shared.queued) / 1000,
    }),
    ...(shared.top !== undefined && tokens.length > 0 && { mean_logprob: logprob / tokens.length }),
    ...(end_token && { end_token }),
  }
}
