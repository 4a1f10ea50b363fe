// Embeddings and classifications on the wire: what is taken, and present() from the engine's answers.

import { type Static, Type } from 'typebox'
import type { Encoded, Encodings } from '../../../engine/infer/encode-request.ts'
import { invalidRequest } from '../../../errors.ts'
import type { Encoding } from '../../scheduler/serving.ts'
import { accepted } from './generation.ts'

const MAX_INPUTS = 2048

/** One schema with a list of types instead of a union: a wrong value then has one clear error. */
const model = Type.String({ description: 'A base model, a tuned model, a checkpoint or an alias.' })

type EmbeddingInput = string | (string | number | number[])[]

export const EmbeddingRequest = Type.Object(
  {
    model,
    input: Type.Unsafe<EmbeddingInput>({
      type: ['string', 'array'],
      minLength: 1,
      minItems: 1,
      maxItems: MAX_INPUTS,
      items: {
        type: ['string', 'integer', 'array'],
        minLength: 1,
        minimum: 0,
        minItems: 1,
        items: { type: 'integer', minimum: 0 },
      },
      description: 'A text, several texts, token ids, or several lists of token ids.',
    }),
    encoding_format: Type.Optional(Type.Enum(['float', 'base64'])),
    dimensions: Type.Optional(
      Type.Integer({
        minimum: 1,
        description: 'Only so many of the first numbers of each vector, of length 1 again.',
      }),
    ),
    user: accepted(),
  },
  { $id: 'CreateEmbeddingRequest' },
)
type EmbeddingRequest = Static<typeof EmbeddingRequest>

export const ClassificationRequest = Type.Object(
  {
    model,
    input: Type.Unsafe<string | string[]>({
      type: ['string', 'array'],
      minLength: 1,
      minItems: 1,
      maxItems: MAX_INPUTS,
      items: { type: 'string', minLength: 1 },
      description: 'A text or several texts.',
    }),
    user: accepted(),
  },
  { $id: 'CreateClassificationRequest' },
)
type ClassificationRequest = Static<typeof ClassificationRequest>

/** What the engine is asked for a request of vectors. */
export function toEmbedding({ input, dimensions }: EmbeddingRequest): Encoding {
  return {
    task: 'embedding',
    input: itemsOf(input),
    ...(dimensions !== undefined && { dimensions }),
  }
}

/** What the engine is asked for a request of labels. */
export const toClassification = ({ input }: ClassificationRequest): Encoding => ({
  task: 'classification',
  input: typeof input === 'string' ? [input] : input,
})

function itemsOf(input: EmbeddingInput): Encoding['input'] {
  if (typeof input === 'string') return [input]
  if (input.every((item) => typeof item === 'number')) return [input]
  if (input.every((item) => typeof item === 'string')) return input
  if (input.every((item) => Array.isArray(item))) return input
  throw invalidRequest(
    'A list of inputs holds texts, token ids, or lists of token ids, and one kind only.',
    { param: 'input', code: 'invalid_type' },
  )
}

/** Encoders write nothing. */
const PromptUsage = Type.Object({ prompt_tokens: Type.Integer(), total_tokens: Type.Integer() })

const usageOf = ({ prompt_tokens }: Encodings) => ({ prompt_tokens, total_tokens: prompt_tokens })

export const EmbeddingReply = Type.Object(
  {
    object: Type.Literal('list'),
    data: Type.Array(
      Type.Object({
        object: Type.Literal('embedding'),
        index: Type.Integer(),
        embedding: Type.Unsafe<number[] | string>({
          type: ['array', 'string'],
          items: { type: 'number' },
          description: 'Numbers, or with `base64` their float32 bytes, little-endian.',
        }),
      }),
    ),
    model: Type.String(),
    usage: PromptUsage,
  },
  { $id: 'CreateEmbeddingResponse' },
)

/** The answer in OpenAI's shape. */
export function presentEmbeddings(
  model: string,
  encodings: Encodings,
  { encoding_format = 'float' }: EmbeddingRequest,
): Static<typeof EmbeddingReply> {
  return {
    object: 'list',
    data: encodings.results.map((result, index) => {
      if (result.type !== 'embedding') throw new Error('The model gave no embedding.')
      const { vector } = result
      return {
        object: 'embedding',
        index,
        embedding: encoding_format === 'base64' ? base64(vector) : vector,
      }
    }),
    model,
    usage: usageOf(encodings),
  }
}

function base64(vector: readonly number[]): string {
  const bytes = Buffer.alloc(4 * vector.length)
  for (const [i, x] of vector.entries()) bytes.writeFloatLE(x, 4 * i)
  return bytes.toString('base64')
}

const Spans = Type.Array(
  Type.Object({
    start: Type.Integer({ description: 'In UTF-16 units.' }),
    end: Type.Integer({ description: 'Exclusive.' }),
    label: Type.String(),
    score: Type.Number(),
  }),
)

export const ClassificationReply = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal('list'),
    created: Type.Integer(),
    model: Type.String(),
    data: Type.Array(
      Type.Object({
        index: Type.Integer(),
        label: Type.Optional(Type.String({ description: 'Of models with one label a text.' })),
        labels: Type.Optional(
          Type.Array(Type.String(), { description: 'Those more likely than not.' }),
        ),
        spans: Type.Optional(Spans),
        probs: Type.Optional(Type.Array(Type.Number())),
        num_classes: Type.Integer(),
        scores: Type.Optional(
          Type.Record(Type.String(), Type.Number(), { description: 'Probabilities by label.' }),
        ),
      }),
    ),
    usage: PromptUsage,
  },
  { $id: 'CreateClassificationResponse' },
)

/** The answer as vLLM's /classify has it, with names. */
export const presentClassifications = (
  head: { id: string; created: number; model: string },
  encodings: Encodings,
): Static<typeof ClassificationReply> => ({
  ...head,
  object: 'list',
  data: encodings.results.map((result, index) => ({ index, ...presentLabels(result) })),
  usage: usageOf(encodings),
})

function presentLabels(result: Encoded) {
  switch (result.type) {
    case 'single':
    case 'several': {
      const { scores } = result
      const most = scores.reduce((a, b) => (b.score > a.score ? b : a))
      return {
        ...(result.type === 'single'
          ? { label: most.label }
          : { labels: scores.filter(({ score }) => score > 0.5).map(({ label }) => label) }),
        probs: scores.map(({ score }) => score),
        num_classes: scores.length,
        scores: Object.fromEntries(scores.map(({ label, score }) => [label, score])),
      }
    }
    case 'tokens':
      return { spans: result.spans, num_classes: result.labels.length }
    case 'embedding':
      throw new Error('The model gave no labels.')
    default:
      return result satisfies never
  }
}
