// Prints what `precision: auto` comes to on a device, and that it trains with it: the tiny model, whatever its size.

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DeviceKind } from '../../src/engine/runtime/device.ts'
import { inspect } from '../../src/engine/train/inspect.ts'
import { train } from '../../src/engine/train/loop.ts'
import { writeTinyModel } from './tiny-model.ts'

const folder = await mkdtemp(join(tmpdir(), 'luthier-half-'))
const model = await writeTinyModel(join(folder, 'tiny'))
const training = { path: join(folder, 'train.jsonl') }
const rows = Array.from({ length: 10 }, (_, i) =>
  JSON.stringify({ prompt: `${i} is `, completion: i % 2 ? 'odd' : 'even' }),
)
await writeFile(training.path, rows.join('\n'))
const { plan } = await inspect({
  type: 'inspect',
  model,
  training,
  method: 'supervised',
  hyperparameters: { n_epochs: 1, batch_size: 5, learning_rate_multiplier: 1 },
  compute: { device: process.argv[2] as DeviceKind, threads: 1 },
})
let choice: object | undefined
let steps = 0
const turn = async () => ({ [Symbol.dispose]() {} })
const request = { type: 'train', model, cache: folder, training, method: 'supervised' } as const
for await (const event of train(
  { ...request, plan: { ...plan!, precision: 'auto' }, seed: 1 },
  { signal: new AbortController().signal, turn },
)) {
  if (event.type === 'precision') choice = event
  if (event.type === 'step') steps++
}
await rm(folder, { recursive: true })
console.log(JSON.stringify({ ...choice, steps }))
