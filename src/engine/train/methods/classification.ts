// Labels for texts: the one that fits, all that apply, or one for each word. Encoders only.

import { type ClassificationTask, type Span, taskOf } from '../../datasets/classification-rows.ts'
import { type EncodeOptions, RowFault } from '../../datasets/encode.ts'
import { encodeWords } from '../../datasets/encode-words.ts'
import { shown } from '../../datasets/report-row.ts'
import { type TextBatch, textBatches } from '../../datasets/text-batches.ts'
import {
  type EncodedTextExample,
  type TextExample,
  textExample,
} from '../../datasets/text-example.ts'
import { bioLabels, bioOfWords, spansOfBio } from '../../datasets/words.ts'
import { input, type Value } from '../../graph/graph.ts'
import * as op from '../../graph/ops/ops.ts'
import { classifierHead } from '../../models/encoder-heads.ts'
import { feedsFor } from '../../models/encoder-pass.ts'
import { float32, type HostTensor, int64 } from '../../tensor.ts'
import { encoderGraphs } from '../encoder-step.ts'
import { type EncoderObjectiveSetup, encoderSubject } from '../encoder-subject.ts'
import { inOrder } from '../in-order.ts'
import { startingGradient } from '../loss-scale.ts'
import { ClassScores } from './class-scores.ts'
import type { Facts, MethodEncoder, Objective, SubjectMethod } from './method.ts'

export const classification: SubjectMethod = {
  name: 'classification',
  encoders: true,
  encoder: labelEncoder,
  baseLearningRate: encoderLearningRate,

  subject(setup) {
    const { task, labels } = headOf(setup.plan.facts)
    const head = classifierHead(setup.weights.config, task)
    return encoderSubject(
      {
        use: { method: 'classification', task, labels },
        head: ({ config }) => head.tensors(config, labels.length),
        objective: (inner) => classifier(inner, task, labels, head.logits),
      },
      setup,
    )
  },

  columns: [
    { name: 'train_loss', metric: 'train_loss' },
    { name: 'train_accuracy', metric: 'train_accuracy' },
    { name: 'valid_loss', metric: 'valid_loss' },
    { name: 'valid_accuracy', metric: 'valid_accuracy' },
    { name: 'valid_macro_f1', metric: 'valid_macro_f1' },
  ],
}

/**
 * 5e-4 · (768 / hidden size)^0.775 for LoRA and a tenth of it for all weights: the rates in use for BERT, scaled as
 * "LoRA Without Regret" scales them.
 */
export function encoderLearningRate(
  { hidden_size }: { hidden_size: number },
  { adapter }: { adapter?: 'lora' | 'none' },
): number {
  return (adapter === 'none' ? 5e-5 : 5e-4) * (768 / hidden_size) ** 0.775
}

function headOf(facts: Facts | undefined) {
  if (!facts?.task || !facts.labels) throw new Error('The plan has no labels to classify by.')
  return { task: facts.task, labels: facts.labels }
}

/** Rows → examples. Labels are those of the training file, sorted; the validation file may have no others. */
function labelEncoder(options: EncodeOptions, facts?: Facts): MethodEncoder {
  const { tokenizer, max_sequence_length: most } = options
  let task = facts?.task
  const fixed = facts?.labels && idsOf(facts.labels)
  const found = new Set<string>()

  const idOf = (label: string, pointer: string): number => {
    const id = fixed?.get(label)
    if (fixed && id === undefined)
      throw new RowFault(
        'unknown_label',
        pointer,
        `has the label ${shown(label)}, which no row of the training file has`,
      )
    return id ?? -1
  }
  const noteLabel = (label: string, pointer: string): number => {
    found.add(label)
    return idOf(label, pointer)
  }

  return {
    formats: ['classification'],

    encode(line, row): EncodedTextExample {
      const own = taskOf(row)
      if (task !== undefined && own !== task)
        throw new RowFault(
          'mixed_formats',
          '',
          `asks for ${ASKS[own]}, the rows before for ${ASKS[task]}`,
        )
      task = own
      const text = row.text as string
      switch (own) {
        case 'single': {
          const id = noteLabel(row.label as string, '/label')
          return textExample(
            line,
            [tokenizer.encodeTexts(text, row.text_pair as string | undefined, most)],
            [id],
          )
        }
        case 'several': {
          const ids = (row.labels as string[]).map((label, i) => noteLabel(label, `/labels/${i}`))
          return textExample(
            line,
            [tokenizer.encodeTexts(text, row.text_pair as string | undefined, most)],
            ids,
          )
        }
        case 'tokens': {
          const spans = row.spans as Span[]
          for (const { label } of spans) found.add(label)
          const { texts, words, firsts } = encodeWords(tokenizer, text, most)
          const labels = bioOfWords(words, spans)
          const classes = texts.ids.map(() => -1)
          for (const [i, first] of firsts.entries())
            if (first !== undefined)
              classes[first] = fixed ? idOf(labels[i]!, spanPointer(spans, labels[i]!)) : 0
          return textExample(line, [texts], classes)
        }
        default:
          return own satisfies never
      }
    },

    facts() {
      const labels = [...found].sort()
      return {
        task: task ?? 'single',
        labels: task === 'tokens' ? bioLabels(labels) : labels,
      }
    },
  }
}

const ASKS: Readonly<Record<ClassificationTask, string>> = {
  single: 'one label',
  several: 'several labels',
  tokens: 'spans',
}

const idsOf = (labels: readonly string[]) => new Map(labels.map((label, id) => [label, id]))

const spanPointer = (spans: readonly Span[], bio: string): string =>
  `/spans/${spans.findIndex(({ label }) => label === bio.slice(2))}/label`

/** Loss and logits over micro-batches. */
function classifier(
  { weights, layout, shape, inTable }: EncoderObjectiveSetup,
  task: ClassificationTask,
  labels: readonly string[],
  logitsOf: (
    hidden: Value,
    weights: Parameters<ReturnType<typeof classifierHead>['logits']>[1],
  ) => Value,
): Pick<Objective, 'graphs' | 'measure'> {
  const L = labels.length
  const graphs = encoderGraphs(weights, layout, shape, ({ hidden, weights: model, bound }) => {
    const index = input('index', 'int64', ['S'])
    const share = input('weights', 'float32', ['S'])
    const logits = logitsOf(op.pick(hidden, index), model)
    const loss =
      task === 'several'
        ? op.binaryCrossEntropy(logits, input('targets', 'float32', ['S', L]), share)
        : op.crossEntropy(logits, input('targets', 'int64', ['S']), share)
    return {
      evaluate: { loss, logits },
      train: { loss, logits, ...bound.gradients(loss, startingGradient(weights)) },
    }
  })

  return {
    graphs,
    async measure(examples, { train, evaluate, width }) {
      const texts = examples as readonly TextExample[]
      const run = train ?? evaluate
      const scores = new ClassScores()
      const total = texts.reduce((n, text) => n + learned(text, task), 0)
      const readable = texts.map(({ tokens, types }) => ({ tokens: inTable(tokens), types }))
      let loss = 0
      function* learnable() {
        for (const batch of textBatches(readable, shape)) {
          const { feeds, places } = answersFeed(batch, texts, { task, L, total })
          if (places.length > 0)
            yield { places, feeds: feedsFor(weights, { ...batch.feeds, ...feeds }) }
        }
      }
      const losses = new Float32Array(texts.length)
      const answers = inOrder(learnable(), ({ feeds }) => run(feeds), width)
      for await (const [{ places }, outputs] of answers) {
        loss += Number(outputs.loss!.data[0])
        const logits = outputs.logits!.data as Float32Array
        score(scores, places, logits, { task, labels })
        for (const [i, place] of places.entries())
          losses[place.text]! +=
            answerLoss(logits.subarray(i * L, (i + 1) * L), place, task) /
            learned(texts[place.text]!, task)
      }
      return {
        loss,
        losses,
        tokens: texts.reduce((n, { tokens }) => n + tokens.length, 0),
        scores: {
          accuracy: scores.accuracy,
          ...(!train && { macro_f1: scores.macroF1 }),
        },
      }
    },
  }
}

const learned = ({ classes }: TextExample, task: ClassificationTask): number =>
  task === 'tokens' ? classes.reduce((n, c) => n + (c >= 0 ? 1 : 0), 0) : 1

/** One answer that the head gives: its text, and the ids that are right. */
interface Place {
  readonly text: number
  readonly truth: readonly number[]
}

interface Answers {
  readonly task: ClassificationTask
  readonly L: number
  readonly total: number
}

/** What the head is asked of a micro-batch, and what is right. */
function answersFeed(batch: TextBatch, texts: readonly TextExample[], { task, L, total }: Answers) {
  const index: number[] = []
  const places: Place[] = []
  for (const { index: text, at } of batch.texts) {
    const { classes } = texts[text]!
    if (task !== 'tokens') {
      index.push(at)
      places.push({ text, truth: [...classes] })
      continue
    }
    for (const [i, id] of classes.entries()) {
      if (id < 0) continue
      index.push(at + i)
      places.push({ text, truth: [id] })
    }
  }
  const S = index.length
  const share = task === 'several' ? 1 / (total * L) : 1 / total
  const feeds: Record<string, HostTensor> = {
    index: int64([S], index),
    weights: float32([S], new Float32Array(S).fill(share)),
    targets:
      task === 'several'
        ? float32(
            [S, L],
            Float32Array.from({ length: S * L }, (_, i) =>
              Number(places[Math.floor(i / L)]!.truth.includes(i % L)),
            ),
          )
        : int64(
            [S],
            places.map(({ truth }) => truth[0]!),
          ),
  }
  return { feeds, places }
}

/** −ln p of what is right; of several labels the mean over all that there are. */
function answerLoss(logits: Float32Array, { truth }: Place, task: ClassificationTask): number {
  if (task === 'several') {
    // −t·ln σ(x) − (1 − t)·ln(1 − σ(x)) = softplus(x) − t·x
    const softplus = (x: number) => Math.log1p(Math.exp(-Math.abs(x))) + Math.max(x, 0)
    const sum = logits.reduce((sum, x, j) => sum + softplus(x) - (truth.includes(j) ? x : 0), 0)
    return sum / logits.length
  }
  const most = logits.reduce((a, b) => Math.max(a, b))
  const total = logits.reduce((sum, x) => sum + Math.exp(x - most), 0)
  return Math.log(total) + most - logits[truth[0]!]!
}

/** Adds what the logits say. Of spans whole ones count, not words. */
function score(
  scores: ClassScores,
  places: readonly Place[],
  logits: Float32Array,
  { task, labels }: { task: ClassificationTask; labels: readonly string[] },
): void {
  const L = labels.length
  const rows = places.map((_, i) => logits.subarray(i * L, (i + 1) * L))
  const names = (ids: readonly number[]) => ids.map((id) => labels[id]!)
  if (task !== 'tokens') {
    for (const [i, { truth }] of places.entries())
      scores.add(names(truth), names(task === 'single' ? [best(rows[i]!)] : above(rows[i]!)))
    return
  }
  for (let from = 0; from < places.length; ) {
    const { text } = places[from]!
    let to = from
    while (places[to]?.text === text) to++
    const spans = (ids: readonly number[]) =>
      spansOfBio(names(ids)).map(({ label, from: a, to: b }) => ({ label, place: `${a}-${b}` }))
    const truth = spans(places.slice(from, to).map((p) => p.truth[0]!))
    const said = spans(rows.slice(from, to).map(best))
    scores.addSpans(truth, said, {
      answers: to - from,
      right: places.slice(from, to).filter((p, i) => p.truth[0] === best(rows[from + i]!)).length,
    })
    from = to
  }
}

function best(row: Float32Array): number {
  let at = 0
  for (let i = 1; i < row.length; i++) if (row[i]! > row[at]!) at = i
  return at
}

/** Labels more likely than not. */
const above = (row: Float32Array): number[] => [...row.keys()].filter((i) => row[i]! > 0)
