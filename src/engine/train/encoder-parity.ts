// The training side of an encoder's parity check: a few rows as training reads them, and what its graph answers to them.

import { encodeFile } from '../datasets/encode.ts'
import { readLines } from '../datasets/jsonl.ts'
import { textBatches, tokensOf } from '../datasets/text-batches.ts'
import type { TextExample } from '../datasets/text-example.ts'
import { input } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import * as op from '../graph/ops/ops.ts'
import { classifierHead } from '../models/encoder-heads.ts'
import { encoderPass, feedsFor } from '../models/encoder-pass.ts'
import { meanPooled } from '../models/pooling.ts'
import { trainedFeeds } from '../models/trained.ts'
import type { TextEvidence } from '../parity/parity.ts'
import { capabilitiesOf } from '../runtime/device.ts'
import { createSession } from '../runtime/session.ts'
import type { TakeTurn } from '../runtime/thread.ts'
import { float32, int64 } from '../tensor.ts'
import type { Tokenizer } from '../tokenizer/tokenizer.ts'
import type { Checkpoint, MappedWeights } from '../weights/checkpoint.ts'
import { readTunedEncoder } from '../weights/tuned-encoder.ts'
import { methodOf } from './methods/index.ts'
import type { EvidenceRequest } from './request.ts'
import { subjectOf } from './subject-of.ts'

/** Rows that are compared. */
const ROWS = 4

export interface TextsAsked {
  readonly request: EvidenceRequest
  readonly checkpoint: Checkpoint
  readonly weights: MappedWeights
  readonly tokenizer: Tokenizer
  /** The file that the rows are of, and which of its lines; absent: all. */
  readonly path: string
  readonly isHeld: ((line: number) => boolean) | undefined
}

/** What training answers to some texts of the file with the model that its files are. */
export async function textEvidence(asked: TextsAsked, turn: TakeTurn): Promise<TextEvidence[]> {
  const { request, checkpoint, weights } = asked
  const { plan } = request
  const method = methodOf(request.method)
  const { use } = await readTunedEncoder(request.adapter, weights)
  const isWords = use.method === 'classification' && use.task === 'tokens'
  const rows = await rowsOf(asked, isWords)
  if (rows.length === 0) return []
  const { seed, adapter: initial } = request
  const examples = rows.map(({ example }) => example)
  const subject = subjectOf(method, { checkpoint, weights, plan, seed, initial, examples })
  const { encoder } = subject
  if (!encoder) throw new Error(`The method '${request.method}' trains no encoder.`)
  const flat = await subject.start()

  const shape = { rows: plan.rows, length: plan.row_length, long: plan.long_rows }
  const N = tokensOf(shape)
  const { hidden, weights: model } = encoderPass(weights, encoder.layout, shape)
  const answers =
    use.method === 'embedding'
      ? meanPooled(hidden, input('shares', 'float32', ['S', N]))
      : classifierHead(weights.config, use.task).logits(
          op.gather(hidden, input('index', 'int64', ['S'])),
          model,
        )
  const { device = 'cpu', threads } = plan
  await using session = await createSession(
    encodeOnnx({ answers }, capabilitiesOf(device).without),
    { device, threads },
  )
  const found: Float32Array[] = []
  const read = rows.map(({ tokens, types }) => ({ tokens: encoder.inTable(tokens), types }))
  for (const batch of textBatches(read, shape)) {
    const places = batch.texts.map(({ index, at }) => rows[index]!.asked.map((place) => at + place))
    const shares = new Float32Array(batch.texts.length * N)
    for (const [s, { index, at }] of batch.texts.entries()) {
      const { length } = rows[index]!.tokens
      shares.fill(1 / length, s * N + at, s * N + at + length)
    }
    using _turn = await turn()
    const outputs = await session.run({
      ...feedsFor(weights, batch.feeds),
      ...(use.method === 'embedding'
        ? { shares: float32([batch.texts.length, N], shares) }
        : { index: int64([places.flat().length], places.flat()) }),
      ...trainedFeeds(encoder.layout, flat),
    })
    const all = outputs.answers!.data as Float32Array
    const counts = places.map(({ length }) => (use.method === 'embedding' ? 1 : length))
    const width = all.length / counts.reduce((a, b) => a + b, 0)
    let row = 0
    for (const [s, { index }] of batch.texts.entries()) {
      found[index] = all.slice(row * width, (row + counts[s]!) * width)
      row += counts[s]!
    }
  }
  return rows.map(({ example, text, tokens }, i) => ({
    line: example.line,
    text,
    tokens,
    answers: found[i]!,
  }))
}

/** A row that can be asked of serving: its text, or its anchor, by itself; and the places that the head reads. */
async function rowsOf(
  { request, checkpoint, tokenizer, path, isHeld }: TextsAsked,
  isWords: boolean,
) {
  const { plan } = request
  const { max_sequence_length } = plan
  const encoder = methodOf(request.method).encoder(
    { tokenizer, chat_template: checkpoint.chat_template, max_sequence_length },
    plan.facts ?? {},
  )
  const examples = (await encodeFile(path, encoder, plan.truncation, isHeld)) as TextExample[]
  // A text that fills all room may have been cut.
  const whole = examples.filter(({ parts }) => parts[0]! < max_sequence_length)
  const texts = await textsOf(path)
  const askable = whole.filter(({ line }) => texts.has(line))
  const step = Math.max(1, Math.floor(askable.length / ROWS))
  return askable
    .filter((_, i) => i % step === 0)
    .slice(0, ROWS)
    .map((example) => {
      const count = example.parts[0]!
      const asked = isWords
        ? [...example.classes.keys()].filter((i) => example.classes[i]! >= 0)
        : [0]
      return {
        example,
        text: texts.get(example.line)!,
        tokens: example.tokens.slice(0, count),
        types: example.types.slice(0, count),
        asked,
      }
    })
    .filter(({ asked }) => asked.length > 0)
}

/** By line, what a client would send; a pair of texts that is read as one cannot be sent. */
async function textsOf(path: string): Promise<Map<number, string>> {
  const texts = new Map<number, string>()
  for await (const line of readLines(path)) {
    if (!('text' in line) || line.text.trim() === '') continue
    const { text, text_pair, anchor } = JSON.parse(line.text) as Record<string, unknown>
    const sent = text ?? anchor
    if (typeof sent === 'string' && text_pair === undefined) texts.set(line.number, sent)
  }
  return texts
}
