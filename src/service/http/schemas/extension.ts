// `luthier` in a job's body: what is ours beside OpenAI's fields, absent from answers unless it was sent.

import { Type } from 'typebox'
import { FINDING_NAMES } from '../../../engine/curate/findings.ts'

const closed = { additionalProperties: false }

const DataOptions = Type.Object(
  {
    validation_split: Type.Optional(
      Type.Number({
        exclusiveMinimum: 0,
        maximum: 0.5,
        description:
          'So large a part of the training file is held back for validation, chosen by what the rows say: near-duplicates stay on one side, and the same file is split in the same way again.',
      }),
    ),
    groups: Type.Optional(
      Type.Array(Type.String({ minLength: 1, maxLength: 64 }), {
        minItems: 1,
        maxItems: 8,
        uniqueItems: true,
        description: 'Fields of a row, or keys of its `metadata`, by which rows are counted.',
      }),
    ),
    reference_file: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          'An uploaded JSONL file of inputs as they occur in production, with or without outputs.',
      }),
    ),
    strict: Type.Optional(
      Type.Union([
        Type.Boolean(),
        Type.Array(Type.Enum(FINDING_NAMES), { minItems: 1, uniqueItems: true }),
      ]),
    ),
  },
  closed,
)

const PublishOptions = Type.Object(
  {
    checkpoint: Type.Optional(
      Type.Enum(['best', 'final'], { description: "Which checkpoint bears the model's name." }),
    ),
    max_regression: Type.Optional(
      Type.Number({
        exclusiveMinimum: 0,
        maximum: 100,
        description:
          'By so much, in nats a token, the loss on general text may grow; a model whose loss grew more is not published.',
      }),
    ),
    eval: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          'An eval that is run at each checkpoint, over the rows and with the prompts of its newest run of a model; the checkpoint of highest score is the best.',
      }),
    ),
  },
  closed,
)

export const Extension = Type.Object(
  { data: Type.Optional(DataOptions), publish: Type.Optional(PublishOptions) },
  closed,
)

/** When training ends before its last epoch. */
export const EarlyStopping = Type.Object(
  {
    patience: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 50, description: 'Epochs without a gain.' }),
    ),
    min_delta: Type.Optional(
      Type.Number({ minimum: 0, description: 'A smaller gain than this is none.' }),
    ),
    metric: Type.Optional(
      Type.Enum(['valid_loss', 'eval_score'], {
        description: '`eval_score`: of the eval that `luthier.publish.eval` names.',
      }),
    ),
  },
  closed,
)
