// What the inference thread is asked of encoders, and what it answers: texts in, vectors or labels out.

import type { Target } from './request.ts'

export type EncodeTask = 'embedding' | 'classification'

export interface EncodeRequest {
  type: 'encode'
  target: Target
  task: EncodeTask
  /** Texts, or token ids as they are. */
  input: (string | number[])[]
  /** Of vectors, only so many of their first numbers. */
  dimensions?: number
}

/** A label and how probable the model finds it. */
export interface LabelScore {
  label: string
  score: number
}

/** A stretch of the text in UTF-16 units, `end` exclusive; its score is the mean over its words. */
export interface FoundSpan extends LabelScore {
  start: number
  end: number
}

/** The answer to one text. */
export type Encoded =
  | { type: 'embedding'; vector: number[] }
  /** Probabilities add up to 1. */
  | { type: 'single'; scores: LabelScore[] }
  /** Each label by itself. */
  | { type: 'several'; scores: LabelScore[] }
  | { type: 'tokens'; labels: string[]; spans: FoundSpan[] }

export interface Encodings {
  prompt_tokens: number
  /** In the order of the input. */
  results: Encoded[]
}

export type EncodeEvent = { type: 'encoded' } & Encodings
