// Models on the wire: what GET /models shows of a base model, a tuned model or a checkpoint.

import { type Static, Type } from 'typebox'
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

export const presentModel = (model: ModelEntry): Static<typeof ModelReply> => ({
  id: model.id,
  object: 'model',
  created: Math.floor(model.created_at.getTime() / 1000),
  owned_by: model.owned_by,
  parent: model.parent,
  root: model.root,
  job_id: model.job_id,
})
