// Models on the wire: what GET /models shows of a base model, a tuned model or a checkpoint.

import { type Static, Type } from 'typebox'
import type { LatestEval } from '../../evals/latest.ts'
import type { ModelEntry } from '../../models/model.ts'

export const ModelParams = Type.Object({ model: Type.String() })

const Parity = Type.Object(
  {
    file: Type.Union([Type.Literal('validation'), Type.Literal('training')], {
      description: 'Where the rows are from: those that were held out, if any were.',
    }),
    lines: Type.Array(Type.Integer()),
    tokens: Type.Integer({ description: 'Places whose logits were compared.' }),
    tolerance: Type.Number(),
    worst_difference: Type.Number({
      description:
        "The largest difference of a row's logits between the training and the serving graph, of the largest of them; both in float32.",
    }),
    template_sha256: Type.Union([Type.String(), Type.Null()]),
    precision: Type.Object({ training: Type.String(), serving: Type.String() }),
    mean_kl: Type.Union([Type.Number(), Type.Null()], {
      description: 'Of the predictions as served from those in float32; null where they are that.',
    }),
  },
  {
    description:
      'That a tuned model is served as it was trained: token ids, template and logits of a few rows agreed before it was published.',
  },
)

export const ModelReply = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal('model'),
    created: Type.Integer(),
    owned_by: Type.String(),
    parent: Type.Union([Type.String(), Type.Null()], {
      description: 'What it was tuned from, or what an alias stands for.',
    }),
    root: Type.String({ description: 'The base model whose weights it uses.' }),
    job_id: Type.Union([Type.String(), Type.Null()]),
    latest_eval: Type.Optional(
      Type.Object(
        {
          eval_id: Type.String(),
          eval_name: Type.String(),
          run_id: Type.String(),
          finished_at: Type.Integer(),
          rows: Type.Integer(),
          examples: Type.Integer({ description: 'That stood before each prompt.' }),
          pass_rate: Type.Object(
            { value: Type.Number(), low: Type.Number(), high: Type.Number() },
            { description: 'Of rows that passed every criterion, with its 95 % interval.' },
          ),
          criteria: Type.Array(
            Type.Object({
              name: Type.String(),
              pass_rate: Type.Number(),
              mean_score: Type.Number(),
            }),
          ),
        },
        {
          description:
            'What it came to in the eval run that ended last. Not in lists; absent where there was none.',
        },
      ),
    ),
    parity: Type.Union([Parity, Type.Null()]),
  },
  { $id: 'Model', description: 'What a request may name as `model`.' },
)

export const ModelList = Type.Object({
  object: Type.Literal('list'),
  data: Type.Array(Type.Ref('Model#')),
})

export const DeletedModel = Type.Object({
  id: Type.String(),
  object: Type.Literal('model'),
  deleted: Type.Literal(true),
})

export const presentModel = (
  model: ModelEntry,
  latest?: LatestEval,
): Static<typeof ModelReply> => ({
  id: model.id,
  object: 'model',
  created: Math.floor(model.created_at.getTime() / 1000),
  owned_by: model.owned_by,
  parent: model.parent,
  root: model.root,
  job_id: model.job_id,
  ...(latest && {
    latest_eval: { ...latest, finished_at: Math.floor(latest.finished_at.getTime() / 1000) },
  }),
  parity: model.parity,
})
