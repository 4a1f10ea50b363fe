// One choice that is being decoded: its tokens, its text so far, and why it ended. No tensors, no batch.

import type { ListedToken, Sampling } from './request.ts'
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
  readonly listing: Listing
  finish_reason: FinishReason | undefined
}

/** A token with its probabilities, before it has a place. */
export type Described = Omit<ListedToken, 'offset'>

/** Which tokens may be told of: those whose text was shown. Lengths are in code points. */
interface Listing {
  decoded: number
  shown: number
  /** `end` is where a token's text ends; `half`: there, within a code point. */
  readonly waiting: { token: ListedToken; end: number; half: boolean }[]
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
  listing: { decoded: 0, shown: 0, waiting: [] },
  finish_reason: options.max_tokens > 0 ? undefined : 'length',
})

/** The counter of the next draw: `sample(logits, sequence.sampling, sequence.index, position(sequence))`. */
export const position = (sequence: Sequence): number => sequence.tokens.length

/**
 * Takes the next token and the bytes it stands for. Gives the text that may be shown now, which may be
 * empty; `sequence.finish_reason` is set when this token was the last. What describes the token comes back
 * from `takeListed` when its text was shown.
 */
export function accept(
  sequence: Sequence,
  token: number,
  bytes: Uint8Array,
  described?: Described,
): string {
  if (sequence.finish_reason) throw new Error(`Sequence ${sequence.index} has ended already.`)
  const shown = step(sequence, token, bytes, described)
  sequence.listing.shown += codePoints(shown)
  return shown
}

function step(sequence: Sequence, token: number, bytes: Uint8Array, described?: Described): string {
  const { stops, text, listing } = sequence
  sequence.tokens.push(token)
  if (sequence.eos_token_ids.includes(token)) return end(sequence)

  const offset = listing.decoded
  const piece = text.push(bytes)
  listing.decoded += codePoints(piece)
  if (described)
    listing.waiting.push({
      token: { ...described, offset },
      end: listing.decoded,
      half: text.half(),
    })
  const shown = passStops(stops, piece)
  if (stops.hit) sequence.finish_reason = 'stop'
  else if (sequence.tokens.length >= sequence.max_tokens) {
    // Half a code point at a cut is not the model's last word: its bytes are left out.
    sequence.finish_reason = 'length'
    return shown + flushStops(stops)
  }
  return shown
}

/** Lets go of what was held back; a half code point at the end may still complete a stop text. */
function end(sequence: Sequence): string {
  const shown = passStops(sequence.stops, sequence.text.flush())
  sequence.finish_reason = 'stop'
  return shown + flushStops(sequence.stops)
}

/** The tokens whose text was shown since the last call. At the end all are, but those that a stop text took away wholly. */
export function takeListed({ listing, stops, finish_reason }: Sequence): ListedToken[] {
  const { waiting, shown } = listing
  if (finish_reason) {
    const all = waiting.splice(0).map(({ token }) => token)
    return stops.hit ? all.filter(({ offset }) => offset < shown) : all
  }
  const still = waiting.findIndex(({ end, half }) => end > shown || (half && end === shown))
  return waiting.splice(0, still < 0 ? waiting.length : still).map(({ token }) => token)
}

/** Where the next token begins in the text of the answer. */
export const nextOffset = ({ listing }: Sequence): number => listing.decoded

/** Length of a text as Python counts it. */
export function codePoints(text: string): number {
  let count = 0
  for (const _ of text) count++
  return count
}
