// One reading of a job's files by what their rows say: duplicates, contradictions, leaks, balance, groups, and how the
// training rows stand against those of a reference file. Memory is bounded; texts are kept only of a few rows.

import type { RowError, RowFormat } from '../datasets/example.ts'
import { readLines } from '../datasets/jsonl.ts'
import { checkLine } from '../datasets/rows.ts'
import { type Balance, GroupCounts, type GroupField, OutputCounts } from './balance.ts'
import { type Cluster, ComparedRows, type Leak } from './compared-rows.ts'
import { type EmbeddingModel, embedTexts } from './embed-texts.ts'
import { type AskedRow, compareWithReference, type Representativeness } from './representative.ts'
import { askedOf, type RowText, rowText } from './row-text.ts'
import { heldBack, splitRows } from './split.ts'
import { vectorFeatures } from './vector-features.ts'
import { wordFeatures } from './word-features.ts'
import { hashText, mix } from './words.ts'

/** Rows of each file that are compared with the other file's: the second numbers where an encoder reads them. */
const MOST_TRAINING = 10_000
const MOST_REFERENCE = 5_000
const MOST_EMBEDDED = { training: 6_000, reference: 3_000 }

export interface CurateRequest {
  readonly training: string
  readonly validation?: string | undefined
  readonly reference?: string | undefined
  /** An encoder by which rows are told from reference rows; absent: their words. */
  readonly encoder?: EmbeddingModel | undefined
  readonly formats: readonly RowFormat[]
  readonly groups: readonly string[]
  readonly validation_split?: number | undefined
}

/** Clusters in numbers, the largest of them in full. */
export interface Clusters {
  clusters: number
  /** Rows beyond the first of each cluster. */
  rows: number
  largest: { lines: number[]; outputs: number; text: string }[]
}

export interface Leakage {
  exact: { rows: number; first: Leak[] }
  near: { rows: number; first: Leak[] }
}

export interface Curation {
  /** Rows of the training file that were compared with each other; those behind them were not. */
  compared: number
  duplicates: Clusters
  near_duplicates: Clusters
  contradictions: Clusters
  leakage: Leakage | null
  balance: Balance
  groups: GroupField[]
  representativeness: Representativeness | null
  reference_errors: RowError[]
  /** Lines of the training file that are held back for validation. */
  held_back: number[] | null
}

export type TellRows = (stage: string, rows: number) => void

export async function curateFiles(request: CurateRequest, tell: TellRows): Promise<Curation> {
  const rows = new ComparedRows()
  const outputs = new OutputCounts()
  const groups = request.groups.map((field) => new GroupCounts(field))
  const sample = new Sample(MOST_TRAINING)
  const labels: (readonly string[])[] = []
  let labelled = false
  let seen = 0
  for await (const { line, row, text } of soundRows(request.training, request.formats)) {
    if (++seen % 1000 === 0) tell('comparing training rows', seen)
    const own = text.labels ?? (text.output === '' ? [] : [text.output])
    labelled ||= text.labels !== undefined
    outputs.add(own, text.output.length)
    for (const group of groups) group.add(line, row, own)
    if (request.reference !== undefined) sample.add({ line, asked: text.asked })
    if (rows.full) continue
    rows.add(line, text)
    if (request.validation_split !== undefined) labels.push(text.labels ?? [])
  }
  const leakage =
    request.validation === undefined ? null : await leaksOf(request.validation, request, rows, tell)
  const reference = request.reference === undefined ? null : await readReference(request.reference)
  if (reference) tell('comparing with the reference file', reference.rows.length)
  const balance = outputs.balance(labelled)
  const clusters = await describe(request.training, [
    rows.exactDuplicates(),
    rows.nearDuplicates(),
    rows.contradictions(),
  ])
  return {
    compared: rows.size,
    duplicates: clusters[0]!,
    near_duplicates: clusters[1]!,
    contradictions: clusters[2]!,
    leakage,
    balance,
    groups: groups.map((group) => group.counted(balance.kind)),
    representativeness:
      reference && reference.errors.length === 0
        ? await represents(
            request,
            { training: sample.rows(), reference: reference.rows, rows },
            tell,
          )
        : null,
    reference_errors: reference?.errors ?? [],
    held_back:
      request.validation_split === undefined
        ? null
        : heldBack(
            splitRows(rows, (row) => labels[row]!),
            request.validation_split,
          ),
  }
}

/** By vectors where there is an encoder. */
function represents(
  { encoder }: CurateRequest,
  files: { training: AskedRow[]; reference: AskedRow[]; rows: ComparedRows },
  tell: TellRows,
): Promise<Representativeness> {
  const { training, reference, rows } = files
  if (!encoder) return compareWithReference(training, reference, wordFeatures(rows))
  const features = vectorFeatures(encoder.id, (texts) =>
    embedTexts(encoder, texts, (read) => tell('reading rows with an encoder', read)),
  )
  // Samples are in an order of their own: the first of them are as good a sample.
  return compareWithReference(
    training.slice(0, MOST_EMBEDDED.training),
    reference.slice(0, MOST_EMBEDDED.reference),
    features,
  )
}

interface SoundRow {
  line: number
  row: Readonly<Record<string, unknown>>
  text: RowText
}

/** Rows without mistakes; of those that have some the inspection tells. */
async function* soundRows(path: string, formats: readonly RowFormat[]): AsyncGenerator<SoundRow> {
  let expected: RowFormat | undefined
  for await (const line of readLines(path)) {
    const { row, format, errors } = checkLine(line, expected, formats)
    expected ??= format
    if (row && format && errors.length === 0)
      yield { line: line.number, row, text: rowText(row, format) }
  }
}

const SHOWN = 50

async function leaksOf(
  path: string,
  { formats }: CurateRequest,
  rows: ComparedRows,
  tell: TellRows,
): Promise<Leakage> {
  const leakage: Leakage = { exact: { rows: 0, first: [] }, near: { rows: 0, first: [] } }
  let seen = 0
  for await (const { line, text } of soundRows(path, formats)) {
    if (++seen % 1000 === 0) tell('comparing validation rows', seen)
    const found = rows.find(text)
    if (!found) continue
    const kind = found.exact ? leakage.exact : leakage.near
    kind.rows++
    if (kind.first.length < SHOWN) kind.first.push({ line, training_line: rows.lineOf(found.row) })
  }
  return leakage
}

/** Numbers, and the largest clusters with the text of their first row, for which the file is read once more. */
async function describe(path: string, kinds: readonly Cluster[][]): Promise<Clusters[]> {
  const largest = kinds.map((clusters) =>
    [...clusters].sort((a, b) => b.lines.length - a.lines.length).slice(0, SHOWN),
  )
  const wanted = new Map(largest.flat().map(({ lines }) => [lines[0]!, '']))
  let left = wanted.size
  if (left > 0)
    for await (const line of readLines(path)) {
      if (!wanted.has(line.number)) continue
      if ('text' in line) wanted.set(line.number, snippet(line.text))
      if (--left === 0) break
    }
  return kinds.map((clusters, i) => ({
    clusters: clusters.length,
    rows: clusters.reduce((sum, { lines }) => sum + lines.length - 1, 0),
    largest: largest[i]!.map(({ lines, outputs }) => ({
      lines: lines.slice(0, SHOWN),
      outputs,
      text: wanted.get(lines[0]!)!,
    })),
  }))
}

function snippet(line: string): string {
  try {
    return (askedOf(JSON.parse(line)) ?? line).slice(0, 200)
  } catch {
    return ''
  }
}

/** So many rows of a file, each as likely as any other, and the same ones whenever the file is the same. */
class Sample {
  readonly #most: number
  #rows: (AskedRow & { key: number })[] = []
  #limit = Number.POSITIVE_INFINITY

  constructor(most: number) {
    this.#most = most
  }

  add({ line, asked }: AskedRow): void {
    const key = mix((hashText(asked) >>> 0) ^ line)
    if (key >= this.#limit) return
    this.#rows.push({ line, asked: asked.slice(0, 4000), key })
    if (this.#rows.length >= 2 * this.#most) this.#cut()
  }

  rows(): AskedRow[] {
    this.#cut()
    return this.#rows
  }

  #cut(): void {
    this.#rows.sort((a, b) => a.key - b.key)
    if (this.#rows.length <= this.#most) return
    this.#limit = this.#rows[this.#most]!.key
    this.#rows.length = this.#most
  }
}

const MOST_ERRORS = 100

/** Inputs of any of the formats, each row by itself. */
async function readReference(path: string): Promise<{ rows: AskedRow[]; errors: RowError[] }> {
  const sample = new Sample(MOST_REFERENCE)
  const errors: RowError[] = []
  for await (const line of readLines(path)) {
    let problem = 'error' in line ? { check: 'invalid_utf8', message: line.error } : undefined
    if ('text' in line)
      try {
        const asked = askedOf(JSON.parse(line.text))
        if (asked !== undefined) sample.add({ line: line.number, asked })
        else
          problem = {
            check: 'unexpected_format',
            message: "has no input: expected 'messages', 'prompt', 'text', 'anchor' or 'input'",
          }
      } catch {
        problem = { check: 'invalid_json', message: 'is not valid JSON' }
      }
    if (problem && errors.length < MOST_ERRORS)
      errors.push({ line: line.number, pointer: '', ...problem })
  }
  return { rows: sample.rows(), errors }
}
