// Models on the wire: what GET /models shows of a base model, a tuned model or a checkpoint.

import { type Static, Type } from 'typebox'
import type { LatestEval } from '../../evals/latest.ts'
import type { ModelEntry } from '../../models/model.ts'

export const ModelParams = Type.Object({ model: Type.String() })

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
})
