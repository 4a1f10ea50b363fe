// Training rows as a job learned from them, on the wire.

import { type Static, Type } from 'typebox'
import type { Example } from '../../jobs/examples.ts'
import { ORDERS } from '../../jobs/ledger.ts'

const closed = { additionalProperties: false }

const Order = Type.Enum([...ORDERS], {
  description:
    '`likely_wrong_label`: the share of rows that did better, over the epochs but the first; `never_learned`: the lowest loss of any epoch; `forgotten`: by how much a loss has risen again; `loss`: that of the last epoch. The greatest comes first.',
})

export const ExamplesQuery = Type.Object({
  order: Type.Optional({ ...Order, default: 'likely_wrong_label' }),
  after: Type.Optional(
    Type.String({ description: 'The id of the last object of the page before.' }),
  ),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 20 })),
})

export const DeriveFileRequest = Type.Object(
  {
    lines: Type.Optional(
      Type.Array(Type.Integer({ minimum: 1 }), {
        minItems: 1,
        maxItems: 100_000,
        uniqueItems: true,
        description: 'Lines of the training file that the new file is to lack.',
      }),
    ),
    top: Type.Optional(
      Type.Object(
        { order: Order, count: Type.Integer({ minimum: 1 }) },
        { ...closed, description: 'Instead of lines: the first so many of an order.' },
      ),
    ),
    filename: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
  },
  closed,
)

export const ExampleReply = Type.Object(
  {
    object: Type.Literal('fine_tuning.job.example'),
    id: Type.String(),
    line: Type.Integer({ description: 'In the training file, from 1.' }),
    score: Type.Number({ description: 'What the rows are ordered by: a share, or nats a token.' }),
    losses: Type.Array(Type.Union([Type.Number(), Type.Null()]), {
      description: 'Of each epoch, when the row was learned from; before that update.',
    }),
    row: Type.Unknown({ description: 'The row itself; null once its file is deleted.' }),
  },
  { $id: 'FineTuningJobExample' },
)

export const presentExample = (example: Example): Static<typeof ExampleReply> => ({
  object: 'fine_tuning.job.example',
  ...example,
})
