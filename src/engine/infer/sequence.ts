// One choice that is being decoded: its tokens, its text so far, and why it ended. No tensors, no batch.

import type { Sampling } from './request.ts'
import { createStops, flushStops, passStops, type Stops } from './stops.ts'
import { createTextStream, type TextStream } from './text-stream.ts'

export type FinishReason = 'stop' | 'length'

export interface Sequence {
  /** Which of the request's `n` choices. */
  readonly index: number
  readonly prompt: readonly number[]
  /** What was generated, the token that ended it included. */
  readonly tokens: number[]
  readonly sampling: Sampling
  readonly max_tokens: number
  readonly eos_token_ids: readonly number[]
  readonly stops: Stops
  readonly text: TextStream
  finish_reason: FinishReason | undefined
}

export interface SequenceOptions {
  index: number
  prompt: readonly number[]
  sampling: Sampling
  /** New tokens at most, already held against the context. */
  max_tokens: number
  stop: readonly string[]
  eos_token_ids: readonly number[]
}

/** A sequence before its first token; with `max_tokens` 0 it is finished already. */
export const createSequence = ({ stop, ...options }: SequenceOptions): Sequence => ({
  ...options,
  tokens: [],
  stops: createStops(stop),
  text: createTextStream(),
  finish_reason: options.max_tokens > 0 ? undefined : 'length',
})

/** The counter of the next draw: `sample(logits, sequence.sampling, sequence.index, position(sequence))`. */
export const position = (sequence: Sequence): number => sequence.tokens.length

/**
 * Takes the next token and the bytes it stands for. Gives the text that may be shown now, which may be
 * empty; `sequence.finish_reason` is set when this token was the last.
 */
export function accept(sequence: Sequence, token: number, bytes: Uint8Array): string {
  if (sequence.finish_reason) throw new Error(`Sequence ${sequence.index} has ended already.`)
  const { stops, text } = sequence
  sequence.tokens.push(token)

  if (sequence.eos_token_ids.includes(token)) return end(sequence, 'stop', '')
  const shown = passStops(stops, text.push(bytes))
  if (stops.hit) {
    sequence.finish_reason = 'stop'
    return shown
  }
  return sequence.tokens.length < sequence.max_tokens ? shown : end(sequence, 'length', shown)
}

/** Lets go of what was held back; a half code point at the end may still complete a stop text. */
function end(sequence: Sequence, reason: FinishReason, shown: string): string {
  const rest = passStops(sequence.stops, sequence.text.flush())
  sequence.finish_reason = sequence.stops.hit ? 'stop' : reason
  return shown + rest + flushStops(sequence.stops)
}
