// The report of a preflight on the wire. It is written by the engine as it is shown.

import { Type } from 'typebox'
import { CreateFineTuningJobRequest } from './fine-tuning.ts'

export const PreflightRequest = CreateFineTuningJobRequest

const closed = Type.Object({}, { additionalProperties: true })
const open = Type.Union([closed, Type.Null()])

const Clusters = Type.Object({
  clusters: Type.Integer(),
  rows: Type.Integer({ description: 'Rows beyond the first of each cluster.' }),
  largest: Type.Array(
    Type.Object({
      lines: Type.Array(Type.Integer()),
      outputs: Type.Integer({ description: 'How many different outputs the lines have.' }),
      text: Type.String(),
    }),
  ),
})

export const PreflightReply = Type.Object(
  {
    object: Type.Literal('fine_tuning.preflight'),
    ok: Type.Boolean({ description: 'Nothing that was found would fail the job.' }),
    findings: Type.Array(
      Type.Object({
        name: Type.String(),
        level: Type.Enum(['info', 'warn', 'error']),
        message: Type.String(),
        param: Type.String(),
      }),
    ),
    errors: Type.Array(
      Type.Object({
        param: Type.String(),
        line: Type.Integer(),
        pointer: Type.String(),
        check: Type.String(),
        message: Type.String(),
      }),
    ),
    training: closed,
    validation: open,
    held_back: open,
    compared_rows: Type.Integer(),
    duplicates: Clusters,
    near_duplicates: Clusters,
    contradictions: Clusters,
    leakage: open,
    balance: closed,
    groups: Type.Array(closed),
    representativeness: open,
    overfit_risk: open,
    forecast: open,
    text: Type.String({ description: 'All of it to be read.' }),
  },
  { $id: 'FineTuningPreflight' },
)
