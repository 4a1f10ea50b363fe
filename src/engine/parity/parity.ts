// Whether a model is served as it was trained: what one side says of a few rows, held against the other. Pure.

import { createHash } from 'node:crypto'
import type { Chat } from '../tokenizer/chat-template.ts'

/** Two float32 graphs of one model may differ by so much: of a row, max|a − b| / max|b| over its logits. */
export const LOGITS_TOLERANCE = 5e-4

/** Mean KL(float32 ‖ as served) that the precision of a served base may cost, in nats a token. */
export const MOST_KL = 0.02

/** A request for the answer that a row teaches, as a client would send it. */
export type RowPrompt = Chat | { readonly text: string }

/** A row as training has it, and the training graph's float32 logits after some of its tokens. */
export interface RowEvidence {
  /** 1-based, in its file. */
  readonly line: number
  readonly prompt: RowPrompt
  /** Tokens of the prompt; absent where it is a text that is learned itself. */
  readonly prompt_length?: number
  readonly tokens: Int32Array
  /** Logits are of the places from … from + count − 1: each says what comes after its token. */
  readonly from: number
  /** [count, V], end to end. */
  readonly logits: Float32Array
}

/** A row of a text, and what the training graph of an encoder answers to it: logits of labels, or a vector. */
export interface TextEvidence {
  /** 1-based, in its file. */
  readonly line: number
  /** As a client would send it. */
  readonly text: string
  readonly tokens: Int32Array
  readonly answers: Float32Array
}

/** What training says of the model that it made. */
export interface Evidence {
  /** Which file the rows are from. */
  readonly file: 'validation' | 'training'
  readonly template_sha256: string | null
  /** That training multiplied its frozen weights in. */
  readonly precision: string
  readonly rows: readonly RowEvidence[]
  /** Of an encoder, instead of rows. */
  readonly texts?: readonly TextEvidence[]
}

/** A text as serving reads and answers it. */
export interface TextAnswer {
  readonly tokens: ArrayLike<number>
  readonly answers: Float32Array
}

/** The same row as serving has it. */
export interface RowAnswer {
  /** What serving makes of the prompt. */
  readonly prompt: readonly number[]
  /** In float32. */
  readonly logits: Float32Array
  /** In the precision that the model is served in; absent where that is float32. */
  readonly served?: Float32Array
}

/** That a model is served as it was trained; kept with it. */
export interface Certificate {
  readonly file: 'validation' | 'training'
  /** Lines of the file. */
  readonly lines: number[]
  /** Places whose logits were compared; of an encoder, tokens of the texts. */
  readonly tokens: number
  readonly tolerance: number
  /** The largest relative difference of a row's logits, both sides in float32. */
  readonly worst_difference: number
  /** Null where the model has no chat template. */
  readonly template_sha256: string | null
  readonly precision: { readonly training: string; readonly serving: string }
  /** Mean KL(float32 ‖ as served); null where float32 is served. */
  readonly mean_kl: number | null
}

/** Either it holds, or what differs, in one sentence. */
export type Verdict = { readonly certificate: Certificate } | { readonly difference: string }

export const hashOfTemplate = (chat_template: string | undefined): string | null =>
  chat_template === undefined ? null : createHash('sha256').update(chat_template).digest('hex')

/** How serving differs from training before anything is computed: the template, the tokens of a prompt. */
export function textDifference(
  { file, rows, template_sha256 }: Evidence,
  serving: { template_sha256: string | null; prompts: readonly (readonly number[])[] },
): string | undefined {
  if (serving.template_sha256 !== template_sha256)
    return `Serving has another chat template (${short(serving.template_sha256)}) than training (${short(template_sha256)}).`
  for (const [i, { line, tokens, prompt_length }] of rows.entries()) {
    const prompt = serving.prompts[i]!
    const at = prompt.findIndex((id, k) => id !== tokens[k])
    if (at < 0 && prompt.length === (prompt_length ?? prompt.length)) continue
    const found =
      at < 0
        ? `it has ${prompt.length} tokens, where training has ${prompt_length}`
        : `token ${at} is ${prompt[at]}, where training has ${tokens[at] ?? 'no more'}`
    return `Serving reads the prompt of line ${line} of the ${file} file differently: ${found}.`
  }
  return undefined
}

const short = (hash: string | null): string => hash?.slice(0, 12) ?? 'none'

/** Holds the answers against the evidence, one for each row. */
export function judge(
  { file, rows, template_sha256, precision }: Evidence,
  serving: { precision: string; answers: readonly RowAnswer[] },
  vocabulary: number,
): Verdict {
  let worst = { difference: 0, line: 0 }
  let tokens = 0
  let divergence = 0
  for (const [i, { line, logits }] of rows.entries()) {
    const answer = serving.answers[i]!
    const difference = relativeDifference(answer.logits, logits)
    if (difference >= worst.difference) worst = { difference, line }
    for (let at = 0; at < logits.length; at += vocabulary, tokens++) {
      const cut = (all: Float32Array) => all.subarray(at, at + vocabulary)
      if (answer.served) divergence += klOf(cut(logits), cut(answer.served))
    }
  }
  const figure = (x: number) => x.toPrecision(3)
  if (!(worst.difference <= LOGITS_TOLERANCE))
    return {
      difference: `Logits of the serving graph differ from the training graph's by ${figure(worst.difference)} of the largest at line ${worst.line} of the ${file} file, and may by ${LOGITS_TOLERANCE}.`,
    }
  const isQuantised = serving.answers.some(({ served }) => served)
  const mean_kl = isQuantised ? divergence / tokens : null
  if (mean_kl !== null && !(mean_kl <= MOST_KL))
    return {
      difference: `Served in ${serving.precision}, the model's predictions are ${figure(mean_kl)} nats a token from those in float32 (mean KL), and may be ${MOST_KL}; LUTHIER_PRECISION=fp32 serves it as it is.`,
    }
  return {
    certificate: {
      file,
      lines: rows.map(({ line }) => line),
      tokens,
      tolerance: LOGITS_TOLERANCE,
      worst_difference: worst.difference,
      template_sha256,
      precision: { training: precision, serving: serving.precision },
      mean_kl,
    },
  }
}

/** Holds what an encoder answers to texts against the evidence, one for each; it is served in float32. */
export function judgeTexts(
  { file, texts = [], precision }: Evidence,
  serving: readonly TextAnswer[],
): Verdict {
  let worst = { difference: 0, line: 0 }
  let tokens = 0
  for (const [i, { line, tokens: own, answers }] of texts.entries()) {
    const { tokens: read, answers: answered } = serving[i]!
    const longer = Math.max(own.length, read.length)
    for (let at = 0; at < longer; at++)
      if (own[at] !== read[at])
        return {
          difference: `Serving reads the text of line ${line} of the ${file} file differently: token ${at} is ${read[at] ?? 'none'}, where training has ${own[at] ?? 'no more'}.`,
        }
    const difference = relativeDifference(answered, answers)
    if (!(difference < worst.difference)) worst = { difference, line }
    tokens += own.length
  }
  if (!(worst.difference <= LOGITS_TOLERANCE))
    return {
      difference: `What the serving graph answers differs from the training graph's by ${worst.difference.toPrecision(3)} of the largest at line ${worst.line} of the ${file} file, and may by ${LOGITS_TOLERANCE}.`,
    }
  return {
    certificate: {
      file,
      lines: texts.map(({ line }) => line),
      tokens,
      tolerance: LOGITS_TOLERANCE,
      worst_difference: worst.difference,
      template_sha256: null,
      precision: { training: precision, serving: 'fp32' },
      mean_kl: null,
    },
  }
}

/** max|a − b| / max|b|; infinite where something is no number. */
export function relativeDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY
  let most = 0
  let apart = 0
  for (let i = 0; i < b.length; i++) {
    const d = Math.abs(a[i]! - b[i]!)
    if (!Number.isFinite(d)) return Number.POSITIVE_INFINITY
    if (d > apart) apart = d
    if (Math.abs(b[i]!) > most) most = Math.abs(b[i]!)
  }
  return most === 0 ? apart : apart / most
}

/** KL(p ‖ q) of two rows of logits, in nats. */
export function klOf(p: Float32Array, q: Float32Array): number {
  const [sumP, sumQ] = [logSum(p), logSum(q)]
  let kl = 0
  for (let i = 0; i < p.length; i++) {
    const logP = p[i]! - sumP
    kl += Math.exp(logP) * (logP - (q[i]! - sumQ))
  }
  return kl
}

function logSum(logits: Float32Array): number {
  let most = Number.NEGATIVE_INFINITY
  for (const x of logits) if (x > most) most = x
  let sum = 0
  for (const x of logits) sum += Math.exp(x - most)
  return most + Math.log(sum)
}
