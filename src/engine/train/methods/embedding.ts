// Vectors for texts: an anchor comes to lie near its positive and far from all else in the batch. Encoders only.
// A batch is embedded first, micro-batch by micro-batch; the gradient of its loss by the vectors then goes back through
// each micro-batch (arXiv 2101.06983), so that in-batch negatives do not depend on what fits into memory.

import type { EncodeOptions } from '../../datasets/encode.ts'
import type { Example } from '../../datasets/example.ts'
import { type Text, type TextBatch, textBatches, tokensOf } from '../../datasets/text-batches.ts'
import { type TextExample, textExample } from '../../datasets/text-example.ts'
import { input } from '../../graph/graph.ts'
import { feedsFor } from '../../models/encoder-pass.ts'
import { meanPooled } from '../../models/pooling.ts'
import { float32 } from '../../tensor.ts'
import { encoderGraphs } from '../encoder-step.ts'
import { type EncoderObjectiveSetup, encoderSubject } from '../encoder-subject.ts'
import { inOrder } from '../in-order.ts'
import { startingGradient } from '../loss-scale.ts'
import { encoderLearningRate } from './classification.ts'
import { type Embedded, infoNce, meanReciprocalRank } from './contrast.ts'
import type { MethodEncoder, Objective, Run, SubjectMethod } from './method.ts'

/** What distances are divided by before the softmax, as in SimCSE (arXiv 2104.08821). */
export const TEMPERATURE = 0.05

/** Examples whose positives an anchor is held against at most when ranks are told. */
const RANKED_TOGETHER = 4096

export const embedding: SubjectMethod = {
  name: 'embedding',
  encoders: true,
  encoder: pairEncoder,
  baseLearningRate: encoderLearningRate,

  subject: (setup) =>
    encoderSubject(
      {
        use: { method: 'embedding' },
        head: () => ({ fresh: new Map() }),
        objective: (inner) => embedder(inner, setup.plan.batch_size),
      },
      setup,
    ),

  columns: [
    { name: 'train_loss', metric: 'train_loss' },
    { name: 'train_accuracy', metric: 'train_accuracy' },
    { name: 'valid_loss', metric: 'valid_loss' },
    { name: 'valid_accuracy', metric: 'valid_accuracy' },
    { name: 'valid_mrr_at_10', metric: 'valid_mrr_at_10' },
  ],
}

function pairEncoder({ tokenizer, max_sequence_length: most }: EncodeOptions): MethodEncoder {
  return {
    formats: ['embedding'],
    encode: (line, row) =>
      textExample(
        line,
        ['anchor', 'positive', 'negative'].flatMap((key) =>
          row[key] === undefined
            ? []
            : [tokenizer.encodeTexts(row[key] as string, undefined, most)],
        ),
      ),
  }
}

/** Validation rows are compared among as many as a step's are. */
function embedder(
  { weights, layout, shape, inTable }: EncoderObjectiveSetup,
  batchSize: number,
): Pick<Objective, 'graphs' | 'measure'> {
  const D = weights.config.hidden_size
  const N = tokensOf(shape)
  const graphs = encoderGraphs(weights, layout, shape, ({ hidden, bound }) => {
    const vectors = meanPooled(hidden, input('shares', 'float32', ['S', N]))
    const dy = input('d_vectors', 'float32', ['S', D])
    return { evaluate: { vectors }, train: bound.gradients(vectors, startingGradient(weights, dy)) }
  })

  const feedsOf = (batch: TextBatch, texts: readonly Text[]) => {
    const S = batch.texts.length
    const shares = new Float32Array(S * N)
    for (const [s, { index, at }] of batch.texts.entries()) {
      const { length } = texts[index]!.tokens
      shares.fill(1 / length, s * N + at, s * N + at + length)
    }
    return feedsFor(weights, { ...batch.feeds, shares: float32([S, N], shares) })
  }

  async function embed(
    examples: readonly Example[],
    { evaluate, width }: Pick<Run, 'evaluate' | 'width'>,
  ) {
    const { texts, ...rows } = textsOf(examples as readonly TextExample[], inTable)
    const vectors = new Float32Array(texts.length * D)
    const batches = [...textBatches(texts, shape)]
    const run = (batch: TextBatch) => evaluate(feedsOf(batch, texts))
    for await (const [batch, outputs] of inOrder(batches, run, width)) {
      const found = outputs.vectors!.data as Float32Array
      for (const [s, { index }] of batch.texts.entries())
        vectors.set(found.subarray(s * D, (s + 1) * D), index * D)
    }
    return { texts, batches, embedded: { ...rows, vectors, width: D } satisfies Embedded }
  }

  return {
    graphs,
    async measure(examples, { train, evaluate, width }) {
      const tokens = examples.reduce((n, e) => n + e.tokens.length, 0)
      if (train) {
        const { texts, batches, embedded } = await embed(examples, { evaluate, width })
        const { loss, losses, gradient, nearest } = infoNce(embedded, TEMPERATURE)
        const back = (batch: TextBatch) => {
          const dy = new Float32Array(batch.texts.length * D)
          for (const [s, { index }] of batch.texts.entries())
            dy.set(gradient.subarray(index * D, (index + 1) * D), s * D)
          const d_vectors = float32([batch.texts.length, D], dy)
          return train({ ...feedsOf(batch, texts), d_vectors })
        }
        for await (const _ of inOrder(batches, back, width));
        return { loss, losses, tokens, scores: { accuracy: nearest / examples.length } }
      }

      const losses = new Float32Array(examples.length)
      let [loss, nearest, ranks] = [0, 0, 0]
      for (let from = 0; from < examples.length; from += RANKED_TOGETHER) {
        const some = examples.slice(from, from + RANKED_TOGETHER)
        const { embedded } = await embed(some, { evaluate, width })
        ranks += meanReciprocalRank(embedded) * some.length
        for (let i = 0; i < some.length; i += batchSize) {
          const part = batchOf(embedded, i, i + batchSize)
          const told = infoNce(part, TEMPERATURE)
          loss += told.loss * part.anchors.length
          losses.set(told.losses, from + i)
          nearest += told.nearest
        }
      }
      const n = Math.max(1, examples.length)
      return {
        loss: loss / n,
        losses,
        tokens,
        scores: { accuracy: nearest / n, mrr_at_10: ranks / n },
      }
    },
  }
}

/** Every text by itself, and which of them are anchors, positives and negatives. */
function textsOf(examples: readonly TextExample[], inTable: (tokens: Int32Array) => Int32Array) {
  const texts: Text[] = []
  const roles: number[][] = [[], [], []]
  for (const { tokens, types, parts } of examples) {
    let from = 0
    for (const [role, length] of parts.entries()) {
      roles[role]!.push(texts.length)
      texts.push({
        tokens: inTable(tokens.subarray(from, from + length)),
        types: types.subarray(from, from + length),
      })
      from += length
    }
  }
  const [anchors, positives, negatives] = roles as [number[], number[], number[]]
  return { texts, anchors, positives, negatives }
}

/** Some of the examples, with the negatives that lie between their texts. */
function batchOf(embedded: Embedded, from: number, to: number): Embedded {
  const anchors = embedded.anchors.slice(from, to)
  const end = embedded.anchors[to] ?? Number.POSITIVE_INFINITY
  return {
    ...embedded,
    anchors,
    positives: embedded.positives.slice(from, to),
    negatives: embedded.negatives.filter((n) => n > anchors[0]! && n < end),
  }
}
