// Moderations on the wire: a classifier's labels as OpenAI's categories.

import { type Static, Type } from 'typebox'
import type { Encoded, Encodings, LabelScore } from '../../../engine/infer/encode-request.ts'
import { invalidRequest } from '../../../errors.ts'
import type { Encoding } from '../../scheduler/serving.ts'

const MAX_INPUTS = 2048

export const CATEGORIES = [
  'harassment',
  'harassment/threatening',
  'hate',
  'hate/threatening',
  'illicit',
  'illicit/violent',
  'self-harm',
  'self-harm/instructions',
  'self-harm/intent',
  'sexual',
  'sexual/minors',
  'violence',
  'violence/graphic',
] as const
type Category = (typeof CATEGORIES)[number]

/** OpenAI's own models, whose place the server's classifier takes. */
const OPENAIS_MODEL = /^(omni|text)-moderation-/

type ModerationInput = string | (string | { type: string; text?: string })[]

export const ModerationRequest = Type.Object(
  {
    model: Type.Optional(
      Type.String({
        description:
          "A tuned classifier; without it, or with a name of OpenAI's, the one that the server has for moderations.",
      }),
    ),
    input: Type.Unsafe<ModerationInput>({
      type: ['string', 'array'],
      minLength: 1,
      minItems: 1,
      maxItems: MAX_INPUTS,
      items: { type: ['string', 'object'], minLength: 1, required: ['type'] },
      description: 'A text, several texts, or the parts of one text.',
    }),
  },
  { $id: 'CreateModerationRequest' },
)

const ofCategories = <T>(of: (category: Category) => T) =>
  Object.fromEntries(CATEGORIES.map((category) => [category, of(category)])) as Record<Category, T>

export const ModerationReply = Type.Object(
  {
    id: Type.String(),
    model: Type.String(),
    results: Type.Array(
      Type.Object({
        flagged: Type.Boolean(),
        categories: Type.Object(ofCategories(() => Type.Boolean())),
        category_scores: Type.Object(ofCategories(() => Type.Number())),
        category_applied_input_types: Type.Object(
          ofCategories(() => Type.Array(Type.Literal('text'))),
        ),
      }),
    ),
  },
  { $id: 'CreateModerationResponse' },
)

/** Which model is meant; throws where the client names none and the server has none. */
export function moderationModel(
  { model }: Static<typeof ModerationRequest>,
  own: string | undefined,
): string {
  if (model !== undefined && !OPENAIS_MODEL.test(model)) return model
  if (own !== undefined) return own
  throw invalidRequest(
    'This server has no model for moderations: send the name of a tuned classifier as `model`, or set LUTHIER_MODERATION_MODEL.',
    { param: 'model', code: 'moderation_model_missing' },
  )
}

/** What the classifier is asked: each text by itself, or parts as one text. */
export function toModeration({ input }: Static<typeof ModerationRequest>): Encoding {
  const task = 'classification'
  if (typeof input === 'string') return { task, input: [input] }
  const texts = input.filter((item) => typeof item === 'string')
  if (texts.length === input.length) return { task, input: texts }
  if (texts.length > 0)
    throw invalidRequest('A list of inputs holds texts or parts, and one kind only.', {
      param: 'input',
      code: 'invalid_type',
    })
  const parts = input.map((part, i) => {
    if (typeof part === 'object' && part.type === 'text' && part.text) return part.text
    throw invalidRequest(
      `Invalid 'input[${i}]': this server moderates text alone, in parts {"type": "text", "text": "…"}.`,
      { param: `input[${i}]`, code: 'invalid_value' },
    )
  })
  return { task, input: [parts.join('\n')] }
}

/** The answer in OpenAI's shape; labels that are none of its categories say that there is nothing. */
export const presentModerations = (
  head: { id: string; model: string },
  { results }: Encodings,
): Static<typeof ModerationReply> => ({ ...head, results: results.map(presentResult) })

function presentResult(result: Encoded) {
  const { scores, found } = judged(result)
  const score = new Map(scores.map((one) => [one.label, one.score]))
  const categories = ofCategories((category) => found.includes(category))
  return {
    flagged: Object.values(categories).some(Boolean),
    categories,
    category_scores: ofCategories((category) => score.get(category) ?? 0),
    category_applied_input_types: ofCategories((category): 'text'[] =>
      score.has(category) ? ['text'] : [],
    ),
  }
}

function judged(result: Encoded): { scores: LabelScore[]; found: string[] } {
  if (result.type !== 'single' && result.type !== 'several')
    throw unsupported('This model labels words; moderations need labels of whole texts.')
  const { scores } = result
  const labels = scores.map(({ label }) => label)
  if (!labels.some((label) => (CATEGORIES as readonly string[]).includes(label)))
    throw unsupported(
      `This model knows none of the categories of moderations (${CATEGORIES.join(', ')}); its labels are ${labels.slice(0, 20).join(', ')}.`,
    )
  if (result.type === 'several')
    return { scores, found: scores.filter(({ score }) => score > 0.5).map(({ label }) => label) }
  return { scores, found: [scores.reduce((a, b) => (b.score > a.score ? b : a)).label] }
}

const unsupported = (message: string) =>
  invalidRequest(message, { param: 'model', code: 'unsupported_model' })
