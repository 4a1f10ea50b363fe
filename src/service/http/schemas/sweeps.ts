// Sweeps on the wire.

import { type Static, type TSchema, Type } from 'typebox'
import type { Sweep, Trial } from '../../db/fine-tuning-sweeps.ts'
import { CreateFineTuningJobRequest, WorkError } from './fine-tuning.ts'

const closed = { additionalProperties: false }
const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])

const choice = (item: ReturnType<typeof Type.Integer>) =>
  Type.Object(
    { values: Type.Array(item, { minItems: 1, maxItems: 64, uniqueItems: true }) },
    closed,
  )
const Rate = Type.Number({ exclusiveMinimum: 0, maximum: 1 })

const Search = Type.Object(
  {
    learning_rate: Type.Optional(
      Type.Union(
        [
          Type.Object({ min: Rate, max: Rate }, closed),
          Type.Object(
            { values: Type.Array(Rate, { minItems: 1, maxItems: 64, uniqueItems: true }) },
            closed,
          ),
        ],
        { description: 'A range is drawn from evenly on a logarithmic scale.' },
      ),
    ),
    rank: Type.Optional(choice(Type.Integer({ minimum: 1, maximum: 512 }))),
    n_epochs: Type.Optional(choice(Type.Integer({ minimum: 1, maximum: 50 }))),
    batch_size: Type.Optional(choice(Type.Integer({ minimum: 1, maximum: 256 }))),
  },
  closed,
)

export const CreateSweepRequest = Type.Object(
  {
    job: CreateFineTuningJobRequest,
    search: Search,
    budget_steps: Type.Optional(
      nullable(
        Type.Integer({
          minimum: 1,
          description:
            'Steps of all trials together, at most; absent: four times those of the job as it is sent.',
        }),
      ),
    ),
    max_trials: Type.Optional(Type.Integer({ minimum: 2, maximum: 64, default: 16 })),
    seed: Type.Optional(nullable(Type.Integer({ minimum: 0, maximum: 2147483647 }))),
  },
  closed,
)

export const SweepParams = Type.Object({ sweep_id: Type.String() })

const TrialReply = Type.Object({
  job_id: Type.String(),
  hyperparameters: Type.Record(Type.String(), Type.Number(), {
    description: 'What differs from the job as it was sent; the first trial is that job.',
  }),
  status: Type.Enum(['running', 'dropped', 'won']),
  rungs: Type.Array(Type.Object({ step: Type.Integer(), valid_loss: nullable(Type.Number()) }), {
    description: 'What it had come to when trials were compared.',
  }),
})

export const SweepReply = Type.Object(
  {
    object: Type.Literal('fine_tuning.sweep'),
    id: Type.String(),
    created_at: Type.Integer(),
    finished_at: nullable(Type.Integer()),
    status: Type.Enum(['running', 'succeeded', 'failed', 'cancelled']),
    search: Type.Object({}, { additionalProperties: true }),
    budget_steps: nullable(Type.Integer()),
    max_trials: Type.Integer(),
    seed: Type.Integer(),
    steps: Type.Integer({ description: 'Of all trials, as far as they were compared.' }),
    trials: Type.Array(TrialReply),
    winner: nullable(Type.String({ description: 'The job whose model is published.' })),
    error: nullable(WorkError),
  },
  { $id: 'FineTuningSweep' },
)

const seconds = (date: Date): number => Math.floor(date.getTime() / 1000)

export const presentSweep = (sweep: Sweep): Static<typeof SweepReply> => ({
  object: 'fine_tuning.sweep',
  id: sweep.id,
  created_at: seconds(sweep.created_at),
  finished_at: sweep.finished_at && seconds(sweep.finished_at),
  status: sweep.status,
  search: sweep.search,
  budget_steps: sweep.budget_steps,
  max_trials: sweep.max_trials,
  seed: sweep.seed,
  steps: sweep.trials.reduce((sum, { rungs }) => sum + (rungs.at(-1)?.step ?? 0), 0),
  trials: sweep.trials.map((trial) => presentTrial(trial, sweep.winner)),
  winner: sweep.winner,
  error: sweep.error,
})

const presentTrial = (
  { job_id, hyperparameters, rungs, dropped }: Trial,
  winner: string | null,
): Static<typeof TrialReply> => ({
  job_id,
  hyperparameters: hyperparameters as Record<string, number>,
  status: job_id === winner ? 'won' : dropped ? 'dropped' : 'running',
  rungs,
})
