// Our side of whole_job.ts: a job as the service runs it, at the precision that `auto` chooses, and how its validation loss
// falls with the time.
//
//   whole_job_luthier.ts MODEL FOLDER CACHE BATCH
//
// Prints the same line as whole_job_peft.py. The time is that of the process, evaluations left out, the trial of the
// precision not.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { encodeFile } from '../../src/engine/datasets/encode.ts'
import { withInt8 } from '../../src/engine/models/int8.ts'
import { uniform } from '../../src/engine/random.ts'
import type { TakeTurn } from '../../src/engine/runtime/thread.ts'
import { openTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { inspect } from '../../src/engine/train/inspect.ts'
import { settledPrecision } from '../../src/engine/train/kept-choice.ts'
import { supervised } from '../../src/engine/train/methods/supervised.ts'
import { createMoments } from '../../src/engine/train/optimizer.ts'
import { choosePrecision, type TrainPrecision } from '../../src/engine/train/precision.ts'
import { learningRate } from '../../src/engine/train/schedule.ts'
import { subjectOf } from '../../src/engine/train/subject-of.ts'
import { createTrainer } from '../../src/engine/train/trainer.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'
import type { Job } from './whole_job.ts'

const [model, folder, cache, batch] = process.argv.slice(2)
if (!model || !folder || !cache) throw new Error('see the head of this file')
const job = JSON.parse(await readFile(join(folder, 'job.json'), 'utf8')) as Job
const training = { path: join(folder, 'train.jsonl') }
const validation = { path: join(folder, 'valid.jsonl') }
const now = () => performance.now() / 1000

const { plan } = await inspect({
  type: 'inspect',
  model,
  training,
  validation,
  method: 'supervised',
  hyperparameters: {
    n_epochs: job.epochs,
    batch_size: Number(batch),
    learning_rate_multiplier: 1,
    learning_rate: job.learning_rate,
    warmup_ratio: job.warmup_ratio,
    weight_decay: job.weight_decay,
    lora: { rank: job.rank, alpha: job.alpha },
  },
})
if (!plan) throw new Error('The rows are not fit for training.')
const checkpoint = await openCheckpoint(model)
const tokenizer = await openTokenizer(checkpoint)
const weights = await mapWeights(checkpoint, cache)
const encode = (path: string) =>
  encodeFile(path, supervised.encoder({ tokenizer, ...plan, chat_template: undefined }), undefined)
const [examples, valid] = [await encode(training.path), await encode(validation.path)]

const turn: TakeTurn = async () => ({ [Symbol.dispose]() {} })
const open = async (precision: TrainPrecision, taking: TakeTurn) => {
  const given = precision === 'int8' ? await withInt8(weights, cache, tokenizer) : weights
  const subject = subjectOf(supervised, {
    checkpoint,
    weights: given,
    plan,
    seed: 0,
    initial: undefined,
    examples,
  })
  const moments = createMoments(subject.parameters)
  return createTrainer(
    { step: 0, adapter: await subject.start(), moments },
    {
      objective: subject.objective,
      threads: plan.threads,
      weightDecay: plan.weight_decay,
      maxGradNorm: plan.max_grad_norm,
      rates: subject.rates,
      turn: taking,
    },
  )
}
const base = { checkpoint, cache, plan, method: 'supervised' }
const { choice, trainer: kept } = await settledPrecision(base, () =>
  choosePrecision({
    lower: 'int8',
    open,
    turn,
    examples: examples.slice(0, Math.min(plan.batch_size, 16)),
    shape: plan,
  }),
)
const { precision, reason } = choice
await using trainer = kept ?? (await open(precision, turn))
const start = now()
const every = Math.max(1, Math.floor(plan.total_steps / job.evaluations))
const points: [number, number][] = []
let spent = 0
let order = [...examples]
for (let step = 1; step <= plan.total_steps; step++) {
  const perEpoch = plan.total_steps / plan.n_epochs
  const at = (step - 1) % perEpoch
  if (at === 0) {
    const drawn = examples.map((example, i) => ({ example, key: uniform(0, step, i) }))
    order = drawn.sort((a, b) => a.key - b.key).map(({ example }) => example)
  }
  const some = order.slice(at * plan.batch_size, (at + 1) * plan.batch_size)
  await trainer.step(some, learningRate(step, plan))
  if (step % every !== 0 && step !== plan.total_steps) continue
  const before = now()
  const told = await trainer.evaluate(valid)
  points.push([before - spent, told!.loss])
  spent += now() - before
}
console.log(JSON.stringify({ start, points, precision, reason }))
