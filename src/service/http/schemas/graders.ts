// Graders on the wire, alone and as the testing criteria of an eval; what running one answers.

import { type Static, type TSchema, Type } from 'typebox'
import type { Grader } from '../../../engine/eval/grader.ts'
import type { GraderRun } from '../../scheduler/graders.ts'

const closed = { additionalProperties: false }
const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])
const template = (
  description = 'May hold placeholders: `{{item.field}}`, `{{sample.output_text}}`.',
) => Type.String({ description })

const Part = Type.Object({ type: Type.String(), text: Type.Optional(Type.String()) })

/** A message whose texts are templates. */
export const TemplateMessage = Type.Object({
  type: Type.Optional(Type.Literal('message')),
  role: Type.Enum(['user', 'assistant', 'system', 'developer']),
  content: Type.Unsafe<string | Static<typeof Part> | (string | Static<typeof Part>)[]>({
    type: ['string', 'object', 'array'],
    description: 'A text, or parts of type `input_text` or `output_text`.',
    required: ['type'],
    properties: { type: { type: 'string' }, text: { type: 'string' } },
    items: {
      type: ['string', 'object'],
      required: ['type'],
      properties: { type: { type: 'string' }, text: { type: 'string' } },
    },
  }),
})

const name = Type.String({ minLength: 1, maxLength: 256 })
const pass_threshold = Type.Optional(
  Type.Number({ description: 'From this score on it passes. Default: the middle of its range.' }),
)

const StringCheck = Type.Object(
  {
    type: Type.Literal('string_check'),
    name,
    input: template(),
    reference: template(),
    operation: Type.Enum(['eq', 'ne', 'like', 'ilike'], {
      description: '`like` and `ilike`: whether the input contains the reference.',
    }),
  },
  closed,
)

const TextSimilarity = Type.Object(
  {
    type: Type.Literal('text_similarity'),
    name,
    input: template(),
    reference: template(),
    evaluation_metric: Type.Enum([
      'cosine',
      'fuzzy_match',
      'bleu',
      'gleu',
      'meteor',
      'rouge_1',
      'rouge_2',
      'rouge_3',
      'rouge_4',
      'rouge_5',
      'rouge_l',
    ]),
    pass_threshold,
    model: Type.Optional(
      Type.String({ description: 'The encoder of `cosine`. Default: the first one installed.' }),
    ),
  },
  closed,
)

const LabelModel = Type.Object(
  {
    type: Type.Literal('label_model'),
    name,
    model: Type.String(),
    input: Type.Array(TemplateMessage, { minItems: 1 }),
    labels: Type.Array(Type.String({ minLength: 1 }), { minItems: 1, maxItems: 1000 }),
    passing_labels: Type.Array(Type.String(), { minItems: 1 }),
  },
  closed,
)

const ScoreModel = Type.Object(
  {
    type: Type.Literal('score_model'),
    name,
    model: Type.String(),
    input: Type.Array(TemplateMessage, { minItems: 1 }),
    sampling_params: Type.Optional(
      Type.Object({
        seed: Type.Optional(nullable(Type.Integer())),
        top_p: Type.Optional(nullable(Type.Number({ minimum: 0, maximum: 1 }))),
        temperature: Type.Optional(nullable(Type.Number({ minimum: 0, maximum: 2 }))),
        max_completions_tokens: Type.Optional(nullable(Type.Integer({ minimum: 1 }))),
      }),
    ),
    range: Type.Optional(Type.Array(Type.Number(), { minItems: 2, maxItems: 2 })),
    pass_threshold,
  },
  closed,
)

const Javascript = Type.Object(
  {
    type: Type.Literal('javascript'),
    name,
    source: Type.String({
      minLength: 1,
      description: 'Defines `function grade(sample, item)`, which returns a number.',
    }),
    pass_threshold,
  },
  closed,
)

/** Taken, so that the answer can say what to use instead. */
const Python = Type.Object({
  type: Type.Literal('python'),
  name,
  source: Type.String(),
  image_tag: Type.Optional(Type.String()),
  pass_threshold,
})

const singles = [StringCheck, TextSimilarity, LabelModel, ScoreModel, Javascript, Python] as const

const Multi = Type.Object(
  {
    type: Type.Literal('multi'),
    name,
    graders: Type.Unsafe<object>({
      description: 'By the names that the formula uses; or a list, or one.',
      anyOf: [
        ...singles,
        { type: 'array', items: { anyOf: singles }, minItems: 1, maxItems: 20 },
        {
          type: 'object',
          propertyNames: { pattern: '^[A-Za-z_][A-Za-z0-9_]{0,63}$' },
          additionalProperties: { anyOf: singles },
          minProperties: 1,
          maxProperties: 20,
        },
      ],
    }),
    calculate_output: Type.String({
      minLength: 1,
      description:
        'Numbers, names of graders, + - * / % ^, min, max, abs, floor, ceil, exp, sqrt, log.',
    }),
    pass_threshold,
  },
  closed,
)

/** Any grader. */
export const GraderSchema = Type.Unsafe<Grader>(Type.Union([...singles, Multi]))

export const ValidateGraderRequest = Type.Object({ grader: GraderSchema })

export const RunGraderRequest = Type.Object({
  grader: GraderSchema,
  item: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  model_sample: Type.String(),
})

const flag = Type.Boolean()
const detail = nullable(Type.String())

export const RunGraderResponse = Type.Object({
  reward: Type.Number(),
  metadata: Type.Object({
    name: Type.String(),
    type: Type.String(),
    errors: Type.Object({
      formula_parse_error: flag,
      sample_parse_error: flag,
      truncated_observation_error: flag,
      unresponsive_reward_error: flag,
      invalid_variable_error: flag,
      other_error: flag,
      python_grader_server_error: flag,
      python_grader_server_error_type: detail,
      python_grader_runtime_error: flag,
      python_grader_runtime_error_details: detail,
      model_grader_server_error: flag,
      model_grader_refusal_error: flag,
      model_grader_parse_error: flag,
      model_grader_server_error_details: detail,
      details: Type.Optional(Type.String({ description: 'Ours: what went wrong, in words.' })),
    }),
    execution_time: Type.Number(),
    scores: Type.Record(Type.String(), Type.Number()),
    token_usage: nullable(Type.Integer()),
    sampled_model_name: nullable(Type.String()),
  }),
  sub_rewards: Type.Record(Type.String(), Type.Number()),
  model_grader_token_usage_per_model: Type.Record(Type.String(), Type.Unknown()),
})

/** Without a grade the reward is 0 and a flag says why. */
export function presentGraderRun(
  { name, type }: Grader,
  { grade, fault, seconds, usage, tokens }: GraderRun,
): Static<typeof RunGraderResponse> {
  const is = (flag: string) => fault?.fault === flag
  const models = [...usage.keys()]
  return {
    reward: grade?.score ?? 0,
    metadata: {
      name,
      type,
      errors: {
        formula_parse_error: is('formula_parse_error'),
        sample_parse_error: is('sample_parse_error'),
        truncated_observation_error: false,
        unresponsive_reward_error: false,
        invalid_variable_error: is('invalid_variable_error'),
        other_error: is('other_error'),
        python_grader_server_error: false,
        python_grader_server_error_type: null,
        python_grader_runtime_error: is('python_grader_runtime_error'),
        python_grader_runtime_error_details: is('python_grader_runtime_error')
          ? (fault?.message ?? null)
          : null,
        model_grader_server_error: is('model_grader_server_error'),
        model_grader_refusal_error: false,
        model_grader_parse_error: is('model_grader_parse_error'),
        model_grader_server_error_details: is('model_grader_server_error')
          ? (fault?.message ?? null)
          : null,
        ...(fault && { details: fault.message }),
      },
      execution_time: seconds,
      scores: grade?.sub ?? {},
      token_usage: models.length > 0 ? tokens : null,
      sampled_model_name: models[0] ?? null,
    },
    sub_rewards: grade?.sub ?? {},
    model_grader_token_usage_per_model: Object.fromEntries(
      [...usage].map(([model, { prompt_tokens, completion_tokens }]) => [
        model,
        {
          prompt_tokens,
          completion_tokens,
          total_tokens: prompt_tokens + completion_tokens,
          cached_tokens: 0,
        },
      ]),
    ),
  }
}
