// Comparisons of eval runs on the wire: what is taken, and present() from record to reply.

import { type Static, Type } from 'typebox'
import { type CreateComparison, MOST_RUNS, type ShownComparison } from '../../evals/comparisons.ts'
import {
  AskingDataSource,
  count,
  EvalParams,
  FewShot,
  metadata,
  name,
  nullable,
  order,
  page,
  RUN_STATUSES,
  RunError,
  seconds,
} from './evals.ts'

const closed = { additionalProperties: false }
const label = Type.Optional(Type.String({ minLength: 1, maxLength: 100 }))

export const CreateComparisonRequest = Type.Unsafe<CreateComparison>(
  Type.Object(
    {
      name,
      metadata,
      runs: Type.Optional(
        Type.Array(
          Type.Union([
            Type.Object({ run_id: Type.String(), label }, closed),
            Type.Object(
              { model: Type.String({ minLength: 1 }), few_shot: Type.Optional(FewShot), label },
              closed,
            ),
          ]),
          {
            maxItems: MOST_RUNS,
            description:
              'Runs of the eval, or models to run it over. A run of the same model over the same rows, asked in the same way, is taken again.',
          },
        ),
      ),
      tuned_model: Type.Optional(
        Type.String({
          minLength: 1,
          description:
            'Adds three runs: its base model, its base model behind as many examples of its training file as fit, and the model itself.',
        }),
      ),
      data_source: Type.Optional(AskingDataSource),
      groups: Type.Optional(
        Type.Array(Type.String({ minLength: 1, maxLength: 200, pattern: '^[^\\u0000]*$' }), {
          maxItems: 8,
          uniqueItems: true,
          description: 'Fields of the rows, such as `label` or `metadata.region`.',
        }),
      ),
    },
    closed,
  ),
)

export const ComparisonParams = Type.Object({
  ...EvalParams.properties,
  comparison_id: Type.String(),
})
export const ListComparisonsQuery = Type.Object({ ...page, order })

const Estimate = Type.Object(
  { value: Type.Number(), low: Type.Number(), high: Type.Number() },
  { description: 'A value with the bounds of its 95 % interval.' },
)
const probability = Type.Number({ minimum: 0, maximum: 1 })
const PassTest = Type.Object(
  {
    difference: Estimate,
    only_first: count,
    only_second: count,
    p_value: probability,
  },
  { description: "McNemar's exact test." },
)
const part = { run_id: Type.String(), rows: count, pass_rate: Estimate }

const Report = Type.Object({
  results: Type.Array(
    Type.Object({
      run_id: Type.String(),
      label: Type.String(),
      model: Type.String(),
      examples: count,
      prompt_tokens: count,
      rows: count,
      errored: count,
      pass_rate: Estimate,
      criteria: Type.Array(
        Type.Object({ name: Type.String(), pass_rate: Estimate, score: Estimate }),
      ),
    }),
  ),
  tests: Type.Array(
    Type.Object({
      runs: Type.Array(Type.String(), { minItems: 2, maxItems: 2 }),
      rows: count,
      passes: PassTest,
      criteria: Type.Array(
        Type.Object({
          name: Type.String(),
          passes: PassTest,
          score: Type.Object(
            { difference: Estimate, p_value: probability },
            { description: 'A paired permutation test.' },
          ),
        }),
      ),
    }),
    { description: 'Every two runs on the rows that both have: the second less the first.' },
  ),
  groups: Type.Array(
    Type.Object({
      field: Type.String(),
      groups: Type.Array(
        Type.Object({
          value: nullable(Type.String()),
          rows: count,
          runs: Type.Array(
            Type.Object({ ...part, mean_scores: Type.Record(Type.String(), Type.Number()) }),
          ),
        }),
      ),
      left_out: count,
      worst: Type.Array(Type.Object({ ...part, value: nullable(Type.String()) })),
    }),
  ),
  warnings: Type.Array(Type.String()),
  text: Type.String({ description: 'The same as a Markdown table.' }),
})

export const ComparisonReply = Type.Object(
  {
    object: Type.Literal('eval.comparison'),
    id: Type.String(),
    eval_id: Type.String(),
    name: Type.String(),
    status: Type.Enum(['in_progress', 'completed', 'failed']),
    created_at: Type.Integer(),
    finished_at: nullable(Type.Integer()),
    runs: Type.Array(
      Type.Object({
        run_id: Type.String(),
        label: Type.String(),
        model: Type.String(),
        status: Type.Enum([...RUN_STATUSES, 'deleted']),
        rows: count,
        rows_done: count,
      }),
    ),
    groups: Type.Array(Type.String()),
    metadata: nullable(Type.Record(Type.String(), Type.String())),
    report: nullable(Report),
    error: RunError,
  },
  { $id: 'EvalComparison' },
)

export const presentComparison = (one: ShownComparison): Static<typeof ComparisonReply> => ({
  object: 'eval.comparison',
  id: one.id,
  eval_id: one.eval_id,
  name: one.name,
  status: one.status,
  created_at: seconds(one.created_at),
  finished_at: one.finished_at && seconds(one.finished_at),
  runs: one.runs.map(({ run_id, label, model }, i) => {
    const state = one.states[i]
    return {
      run_id,
      label,
      model: model ?? '',
      status: state?.status ?? 'deleted',
      rows: state?.total ?? 0,
      rows_done: state ? state.passed + state.failed + state.errored : 0,
    }
  }),
  groups: one.groups,
  metadata: one.metadata,
  report: one.report && {
    ...one.report,
    results: one.report.results.map((result) => ({ ...result, model: result.model ?? '' })),
  },
  error: one.error,
})
