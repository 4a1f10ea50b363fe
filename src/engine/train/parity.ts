// The training side of the parity check: a few rows as training reads them, and its graph's float32 logits on them.

import { lineSet } from '../curate/split.ts'
import { encodeFile } from '../datasets/encode.ts'
import type { Example, RowFormat } from '../datasets/example.ts'
import { readLines } from '../datasets/jsonl.ts'
import { chatOf, type Json } from '../datasets/messages.ts'
import type { PreferenceExample } from '../datasets/preference-example.ts'
import { detectFormat } from '../datasets/rows.ts'
import { input } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import * as op from '../graph/ops/ops.ts'
import { architectureOf } from '../models/index.ts'
import { linear } from '../models/layers.ts'
import { weightsOf } from '../models/weights.ts'
import {
  type Evidence,
  hashOfTemplate,
  type RowEvidence,
  type RowPrompt,
} from '../parity/parity.ts'
import { capabilitiesOf } from '../runtime/device.ts'
import { createSession } from '../runtime/session.ts'
import type { TakeTurn } from '../runtime/thread.ts'
import { int64 } from '../tensor.ts'
import { openTokenizer } from '../tokenizer/tokenizer.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import { openCheckpoint } from '../weights/checkpoint.ts'
import { mapWeights } from '../weights/mapped.ts'
import { textEvidence } from './encoder-parity.ts'
import { methodOf } from './methods/index.ts'
import type { Tuned } from './probe.ts'
import type { EvidenceRequest } from './request.ts'
import { hiddenRows } from './step.ts'
import { subjectOf } from './subject-of.ts'

/** Rows that are compared, and places of each: logits of a large vocabulary outweigh all else. */
const ROWS = 4
const PLACES = 16
/** Rows that are looked at for each that is compared: not every row can be asked of serving. */
const TRIED = 16
/** Longer rows are taken only where there are no others. */
const LONG = 512

/** A row that can be asked of serving: what is learned of it, and the prompt before that. */
interface Candidate {
  readonly line: number
  readonly tokens: Int32Array
  /** The first learned token of the last stretch. */
  readonly learned: number
}

/**
 * What training makes of some rows with the model that its files are, or why there is nothing to compare.
 */
export async function gatherEvidence(
  request: EvidenceRequest,
  turn: TakeTurn,
): Promise<{ evidence?: Evidence; unasked?: string }> {
  const { plan } = request
  const checkpoint = await openCheckpoint(request.model)
  const { chat_template } = checkpoint
  const weights = await mapWeights(checkpoint, request.cache)
  const tokenizer = await openTokenizer(checkpoint)
  const method = methodOf(request.method)

  // Which rows: of those that were held out, if any were.
  const { max_sequence_length } = plan
  const isHeld = plan.held_back === undefined ? undefined : lineSet(plan.held_back)
  const file = isHeld || request.validation ? 'validation' : 'training'
  const path = isHeld ? request.training.path : (request.validation ?? request.training).path
  if (checkpoint.config.encoder) {
    const texts = await textEvidence(
      { request, checkpoint, weights, tokenizer, path, isHeld },
      turn,
    )
    const unasked = `no row of the ${file} file is a text by itself that fits whole`
    if (texts.length === 0) return { unasked }
    return { evidence: { file, template_sha256: null, precision: plan.precision, rows: [], texts } }
  }
  const encoder = method.encoder(
    { tokenizer, chat_template, max_sequence_length },
    plan.facts ?? {},
  )
  const examples = await encodeFile(path, encoder, plan.truncation, isHeld)
  const chosen = spread(candidates(examples, max_sequence_length), ROWS * TRIED)
  const prompts = await promptsOf(path, chosen, encoder.formats)
  const askable = chosen.flatMap((row) => {
    const prompt = prompts.get(row.line)
    return prompt ? [{ ...row, prompt }] : []
  })
  const asked = spread(askable, ROWS)
  if (asked.length === 0)
    return {
      unasked: `no row of the ${file} file fits whole and ends with an answer that is learned`,
    }

  // What the tuned model says of them.
  const subject = subjectOf(method, {
    checkpoint,
    weights,
    plan,
    seed: request.seed,
    initial: request.adapter,
    examples: [],
  })
  if (!subject.tuned) throw new Error(`The method '${request.method}' has no graph of its logits.`)
  const flat = await subject.start()
  const longest = Math.max(...asked.map(({ tokens }) => tokens.length))
  const length = Math.ceil(longest / 64) * 64
  const { device = 'cpu', threads } = plan
  await using session = await createSession(
    encodeOnnx(buildLogits(weights, subject.tuned, length), capabilitiesOf(device).without),
    { device, threads },
  )
  const rows: RowEvidence[] = []
  for (const { line, prompt, tokens, learned } of asked) {
    const isText = 'text' in prompt && learned === 1
    const first = isText ? Math.max(1, tokens.length - PLACES) : learned
    const count = Math.min(PLACES, tokens.length - first)
    const places = Array.from({ length: count }, (_, i) => first - 1 + i)
    using _turn = await turn()
    const outputs = await session.run({
      ...feedsOf(tokens, places, length),
      ...subject.tuned.feeds(flat),
    })
    rows.push({
      line,
      prompt,
      ...(!isText && { prompt_length: learned }),
      tokens: tokens.slice(0, first + count),
      from: first - 1,
      logits: (outputs.logits!.data as Float32Array).slice(),
    })
  }
  const template_sha256 = hashOfTemplate(chat_template)
  return { evidence: { file, template_sha256, precision: plan.precision, rows } }
}

/** Rows with something learned whose end was not cut, short ones first. */
function candidates(examples: readonly Example[], limit: number): Candidate[] {
  const found = examples.flatMap((example): Candidate[] => {
    const end = 'preferred' in example ? (example as PreferenceExample).preferred : undefined
    const tokens = example.tokens.subarray(0, end)
    const weights = example.weights.subarray(0, end)
    const last = weights.findLastIndex((weight) => weight > 0)
    if (last < 0 || tokens.length >= limit) return []
    let learned = last
    while (learned > 1 && weights[learned - 1]! > 0) learned--
    return [{ line: example.line, tokens: tokens.slice(0, last + 1), learned }]
  })
  const short = found.filter(({ tokens }) => tokens.length <= LONG)
  return short.length > 0
    ? short
    : found.sort((a, b) => a.tokens.length - b.tokens.length).slice(0, ROWS)
}

/** So many of them, evenly over the whole. */
function spread<T>(all: readonly T[], count: number): T[] {
  if (all.length <= count) return [...all]
  return Array.from({ length: count }, (_, i) => all[Math.floor((i * all.length) / count)]!)
}

/** What a client would ask for to get the answers of these rows, by line. */
async function promptsOf(
  path: string,
  rows: readonly Candidate[],
  formats: readonly RowFormat[],
): Promise<Map<number, RowPrompt>> {
  const wanted = new Set(rows.map(({ line }) => line))
  const prompts = new Map<number, RowPrompt>()
  for await (const line of readLines(path)) {
    if (!wanted.has(line.number) || !('text' in line)) continue
    const row = JSON.parse(line.text) as Json
    const prompt = promptOf(row, detectFormat(row, formats))
    if (prompt) prompts.set(line.number, prompt)
  }
  return prompts
}

/** Of a chat it is all before its last message, which must be learned. */
function promptOf(row: Json, format: RowFormat | undefined): RowPrompt | undefined {
  switch (format) {
    case 'chat': {
      const { messages, tools } = chatOf(row)
      const last = messages.at(-1)
      if (messages.length < 2 || last?.role !== 'assistant' || last.weight === 0) return undefined
      return { messages: messages.slice(0, -1), tools }
    }
    case 'preference':
      return chatOf(row.input as Json)
    case 'completion':
      return { text: String(row.prompt) }
    case 'text':
      return { text: String(row.text) }
    default:
      return undefined
  }
}

/** Inputs `tokens`, `positions`, `segments` [1, T], `index` [S] and the trained vector's; output `logits` [S, V]. */
function buildLogits(mapped: MappedWeights, tuned: Tuned, T: number) {
  const row = (name: string) => input(name, 'int64', [1, T])
  const inputs = { tokens: row('tokens'), positions: row('positions'), segments: row('segments') }
  const model = tuned.weights(weightsOf(mapped))
  const hidden = hiddenRows(mapped, model, inputs)
  const { config } = mapped
  const head = architectureOf(config).head(model, config)
  return { logits: linear(op.pick(hidden, input('index', 'int64', ['S'])), head) }
}

function feedsOf(tokens: Int32Array, places: readonly number[], T: number) {
  const row = (value: (i: number) => number) =>
    int64(
      [1, T],
      Int32Array.from({ length: T }, (_, i) => value(i)),
    )
  return {
    tokens: row((i) => tokens[i] ?? 0),
    positions: row((i) => (i < tokens.length ? i : 0)),
    segments: row((i) => (i < tokens.length ? 1 : 0)),
    index: int64([places.length], places),
  }
}
