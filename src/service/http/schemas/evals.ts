// Evals, their runs and what each row came to, on the wire: what is taken, and present() from record to reply.

import { type Static, type TSchema, Type } from 'typebox'
import type { OutputItem } from '../../db/eval-output-items.ts'
import type { EvalRun } from '../../db/eval-runs.ts'
import type { Eval } from '../../db/evals.ts'
import type { CreateEval } from '../../evals/evals.ts'
import type { CreateRun, RunWithSums } from '../../evals/runs.ts'
import { cursorQuery } from '../pagination.ts'
import { Metadata } from './fine-tuning.ts'
import { GraderSchema, TemplateMessage } from './graders.ts'

const closed = { additionalProperties: false }
export const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])
export const metadata = Type.Optional(nullable(Metadata))
export const name = Type.Optional(Type.String({ minLength: 1, maxLength: 256 }))
const AnyObject = Type.Record(Type.String(), Type.Unknown())

export const CreateEvalRequest = Type.Unsafe<CreateEval>(
  Type.Object(
    {
      name,
      metadata,
      data_source_config: Type.Union([
        Type.Object(
          {
            type: Type.Literal('custom'),
            item_schema: Type.Unsafe<Record<string, unknown>>({
              type: 'object',
              description: 'A JSON schema that the `item` of each row must fit.',
            }),
            include_sample_schema: Type.Optional(Type.Boolean()),
          },
          closed,
        ),
        Type.Object({ type: Type.Literal('logs'), metadata: Type.Optional(nullable(AnyObject)) }),
        Type.Object({
          type: Type.Literal('stored_completions'),
          metadata: Type.Optional(nullable(AnyObject)),
        }),
      ]),
      testing_criteria: Type.Array(GraderSchema, { minItems: 1, maxItems: 50 }),
    },
    closed,
  ),
)

export const UpdateEvalRequest = Type.Object({ name, metadata }, closed)

export const EvalParams = Type.Object({ eval_id: Type.String() })
export const RunParams = Type.Object({ eval_id: Type.String(), run_id: Type.String() })
export const ItemParams = Type.Object({
  eval_id: Type.String(),
  run_id: Type.String(),
  output_item_id: Type.String(),
})

export const order = Type.Optional(Type.Enum(['asc', 'desc'], { default: 'asc' }))
export const page = cursorQuery({ default: 20, maximum: 100 }).properties
export const ListEvalsQuery = Type.Object({
  ...page,
  order,
  order_by: Type.Optional(Type.Enum(['created_at', 'updated_at'], { default: 'created_at' })),
})
export const RUN_STATUSES = ['queued', 'in_progress', 'completed', 'canceled', 'failed'] as const
export const ListRunsQuery = Type.Object({
  ...page,
  order,
  status: Type.Optional(Type.Enum([...RUN_STATUSES])),
})
export const ListItemsQuery = Type.Object({
  ...page,
  order,
  status: Type.Optional(Type.Enum(['fail', 'pass'])),
})

const filters = { additionalProperties: true }
const Rows = Type.Union([
  Type.Object(
    {
      type: Type.Literal('file_content'),
      content: Type.Array(
        Type.Object(
          { item: AnyObject, sample: Type.Optional(nullable(AnyObject)) },
          { additionalProperties: true },
        ),
      ),
    },
    closed,
  ),
  Type.Object({ type: Type.Literal('file_id'), id: Type.String() }, closed),
  Type.Object({ type: Type.Literal('stored_completions') }, filters),
  Type.Object({ type: Type.Literal('responses') }, filters),
])

const InputMessages = Type.Union([
  Type.Object(
    {
      type: Type.Literal('template'),
      template: Type.Array(TemplateMessage, { minItems: 1, maxItems: 500 }),
    },
    closed,
  ),
  Type.Object(
    {
      type: Type.Literal('item_reference'),
      item_reference: Type.String({ pattern: '^item\\.[^{}]{1,200}$' }),
    },
    closed,
  ),
])

const Sampling = Type.Object(
  {
    temperature: Type.Optional(nullable(Type.Number({ minimum: 0, maximum: 2 }))),
    top_p: Type.Optional(nullable(Type.Number({ minimum: 0, maximum: 1 }))),
    seed: Type.Optional(nullable(Type.Integer())),
    max_completion_tokens: Type.Optional(nullable(Type.Integer({ minimum: 1 }))),
    reasoning_effort: Type.Optional(Type.Unknown({ description: 'Accepted and ignored.' })),
    response_format: Type.Optional(nullable(Type.Object({ type: Type.String() }))),
    text: Type.Optional(nullable(Type.Object({}))),
    tools: Type.Optional(nullable(Type.Array(Type.Unknown()))),
  },
  closed,
)

const asking = {
  source: Rows,
  input_messages: Type.Optional(InputMessages),
  sampling_params: Type.Optional(Sampling),
}
const sampled = { ...asking, model: Type.Optional(Type.String({ minLength: 1 })) }

/** How models are asked that are named elsewhere. */
export const AskingDataSource = Type.Union([
  Type.Object({ type: Type.Literal('completions'), ...asking }, closed),
  Type.Object({ type: Type.Literal('responses'), ...asking }, closed),
])

/** Where the rows come from, and how a model is asked with them. */
export const RunDataSource = Type.Union([
  Type.Object({ type: Type.Literal('jsonl'), source: Rows }, closed),
  Type.Object({ type: Type.Literal('completions'), ...sampled }, closed),
  Type.Object({ type: Type.Literal('responses'), ...sampled }, closed),
])

/** Examples before each prompt. */
export const FewShot = Type.Object(
  {
    file_id: Type.String({ description: 'A training file, to choose examples of.' }),
    examples: Type.Union([Type.Literal('auto'), Type.Integer({ minimum: 1, maximum: 64 })], {
      description: '`auto`: as many as fit into the context with the longest prompt, 64 at most.',
    }),
    max_prompt_tokens: Type.Optional(
      Type.Integer({ minimum: 1, description: 'Fewer examples, so that no prompt is longer.' }),
    ),
  },
  closed,
)

export const CreateEvalRunRequest = Type.Unsafe<CreateRun>(
  Type.Object(
    {
      name,
      metadata,
      data_source: RunDataSource,
      luthier: Type.Optional(
        Type.Object(
          {
            few_shot: Type.Optional(FewShot),
          },
          closed,
        ),
      ),
    },
    closed,
  ),
)

export const EvalReply = Type.Object(
  {
    object: Type.Literal('eval'),
    id: Type.String(),
    name: Type.String(),
    data_source_config: Type.Object({ type: Type.Literal('custom'), schema: AnyObject }),
    testing_criteria: Type.Array(AnyObject),
    created_at: Type.Integer(),
    metadata: nullable(Type.Record(Type.String(), Type.String())),
  },
  { $id: 'Eval' },
)

export const count = Type.Integer({ minimum: 0 })
export const RunError = nullable(Type.Object({ code: Type.String(), message: Type.String() }))

export const EvalRunReply = Type.Object(
  {
    object: Type.Literal('eval.run'),
    id: Type.String(),
    eval_id: Type.String(),
    status: Type.Enum([...RUN_STATUSES]),
    model: Type.String({ description: 'Empty where the rows bring their samples.' }),
    name: Type.String(),
    created_at: Type.Integer(),
    report_url: Type.String({ description: 'The run itself, by this API.' }),
    result_counts: Type.Object({ total: count, errored: count, failed: count, passed: count }),
    per_model_usage: Type.Array(
      Type.Object({
        model_name: Type.String(),
        invocation_count: count,
        prompt_tokens: count,
        completion_tokens: count,
        total_tokens: count,
        cached_tokens: count,
      }),
    ),
    per_testing_criteria_results: Type.Array(
      Type.Object({
        testing_criteria: Type.String(),
        passed: count,
        failed: count,
        mean_score: Type.Number({ description: 'Ours.' }),
      }),
    ),
    data_source: AnyObject,
    metadata: nullable(Type.Record(Type.String(), Type.String())),
    error: RunError,
    luthier: Type.Optional(AnyObject),
  },
  { $id: 'EvalRun' },
)

export const OutputItemReply = Type.Object(
  {
    object: Type.Literal('eval.run.output_item'),
    id: Type.String(),
    run_id: Type.String(),
    eval_id: Type.String(),
    created_at: Type.Integer(),
    status: Type.Enum(['pass', 'fail', 'error']),
    datasource_item_id: count,
    datasource_item: AnyObject,
    results: Type.Array(AnyObject),
    sample: AnyObject,
  },
  { $id: 'EvalRunOutputItem' },
)

export const DeletedEval = Type.Object({
  object: Type.Literal('eval.deleted'),
  deleted: Type.Literal(true),
  eval_id: Type.String(),
})

export const DeletedEvalRun = Type.Object({
  object: Type.Literal('eval.run.deleted'),
  deleted: Type.Literal(true),
  run_id: Type.String(),
})

export const seconds = (date: Date): number => Math.floor(date.getTime() / 1000)

export const presentEval = (one: Eval): Static<typeof EvalReply> => ({
  object: 'eval',
  id: one.id,
  name: one.name,
  data_source_config: { type: 'custom', schema: rowSchema(one) },
  testing_criteria: one.testing_criteria as unknown as Record<string, unknown>[],
  created_at: seconds(one.created_at),
  metadata: one.metadata,
})

/** What a row of a run is to look like. */
function rowSchema({ data_source_config: { item_schema, include_sample_schema } }: Eval) {
  const sample = {
    type: 'object',
    properties: { output_text: { type: 'string' }, output_json: {} },
    required: ['output_text'],
  }
  return {
    type: 'object',
    properties: { item: item_schema, ...(include_sample_schema && { sample }) },
    required: include_sample_schema ? ['item', 'sample'] : ['item'],
  }
}

/** `base` is where clients reach this server. */
export const presentRun = (run: RunWithSums, base: string): Static<typeof EvalRunReply> => ({
  object: 'eval.run',
  id: run.id,
  eval_id: run.eval_id,
  status: run.status,
  model: run.model ?? '',
  name: run.name,
  created_at: seconds(run.created_at),
  report_url: `${base}/v1/evals/${run.eval_id}/runs/${run.id}`,
  result_counts: {
    total: run.total ?? 0,
    errored: run.errored,
    failed: run.failed,
    passed: run.passed,
  },
  per_model_usage: run.usage.map(({ model, prompt_tokens, completion_tokens, ...rest }) => ({
    model_name: model,
    invocation_count: rest.invocation_count,
    prompt_tokens,
    completion_tokens,
    total_tokens: prompt_tokens + completion_tokens,
    cached_tokens: 0,
  })),
  per_testing_criteria_results: run.criteria.map(({ criterion, passed, failed, score_sum }) => ({
    testing_criteria: criterion,
    passed,
    failed,
    mean_score: passed + failed === 0 ? 0 : score_sum / (passed + failed),
  })),
  data_source: run.data_source,
  metadata: run.metadata,
  error: run.error,
  ...(run.luthier && { luthier: presentLuthier(run) }),
})

function presentLuthier({ luthier, few_shot }: EvalRun) {
  const chosen = few_shot && {
    chosen: { examples: few_shot.examples, prompt_tokens: few_shot.prompt_tokens },
  }
  return { ...luthier, ...(luthier?.few_shot && { few_shot: { ...luthier.few_shot, ...chosen } }) }
}

export const presentItem = (run: EvalRun, item: OutputItem): Static<typeof OutputItemReply> => ({
  object: 'eval.run.output_item',
  id: item.id,
  run_id: run.id,
  eval_id: run.eval_id,
  created_at: seconds(item.created_at),
  status: item.status,
  datasource_item_id: item.datasource_item_id,
  datasource_item: item.datasource_item,
  results: item.results as unknown as Record<string, unknown>[],
  sample: item.sample as unknown as Record<string, unknown>,
})
