// One epoch of the sample set through the training thread: tokens/s after the first step, and memory.

import { spawn } from '../src/engine/runtime/thread.ts'
import type { TrainEvent, TrainThreadRequest } from '../src/engine/train/request.ts'
import { memory } from './measure.ts'

const [model, cache, path] = process.argv.slice(2)
if (!model || !cache || !path) throw new Error('usage: training.ts MODEL CACHE ROWS')

const data = { model, training: { path }, method: 'supervised' as const }
const hyperparameters = {
  n_epochs: 1,
  batch_size: 'auto' as const,
  learning_rate_multiplier: 'auto' as const,
}
await using thread = spawn<TrainThreadRequest, TrainEvent>(
  new URL('../src/engine/train/worker.ts', import.meta.url),
)

for await (const event of thread.run({ type: 'inspect', ...data, hyperparameters })) {
  if (event.type !== 'inspected' || !event.plan) continue
  const { examples, tokens } = event.training
  let start = 0
  let end = 0
  const begun = performance.now()
  for await (const step of thread.run({ type: 'train', ...data, cache, plan: event.plan, seed: 1 }))
    if (step.type === 'step') {
      end = performance.now()
      start ||= end
    }
  const timed = (tokens * (examples - event.plan.batch_size)) / examples
  const measured = [
    { name: 'training', value: timed / ((end - start) / 1000), unit: 'tokens/s' },
    { name: 'first step, with preparing the weights', value: (start - begun) / 1000, unit: 's' },
    { name: 'row length', value: event.plan.row_length, unit: 'tokens' },
    { name: 'rows of a micro-batch', value: event.plan.rows, unit: '' },
    { name: 'steps', value: event.plan.total_steps, unit: '' },
    ...memory(),
  ]
  process.stdout.write(JSON.stringify(measured))
}
