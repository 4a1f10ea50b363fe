// Prints, as JSON, how far the gradients on a device are from the processor's: for families, methods and kinds of adapters.
// A process of its own, for a driver is found by the environment that a process starts with.

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encodeFile } from '../../src/engine/datasets/encode.ts'
import { uniform } from '../../src/engine/random.ts'
import { DEVICES, type DeviceKind } from '../../src/engine/runtime/device.ts'
import { openTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { inspect } from '../../src/engine/train/inspect.ts'
import { type MethodName, methodOf } from '../../src/engine/train/methods/index.ts'
import { createMoments } from '../../src/engine/train/optimizer.ts'
import type { Hyperparameters } from '../../src/engine/train/request.ts'
import { relativeError } from '../../src/engine/train/self-test.ts'
import { subjectOf } from '../../src/engine/train/subject-of.ts'
import { createTrainer } from '../../src/engine/train/trainer.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'
import { writeTinyEncoder } from './tiny-encoder.ts'
import { writeTinyModel } from './tiny-model.ts'

interface Case {
  model: string
  method?: MethodName
  hyperparameters?: Partial<Hyperparameters>
}

const [device, stories] = process.argv.slice(2)
if (!DEVICES.some((known) => known === device)) throw new Error(`${device} is no device`)
const folder = await mkdtemp(join(tmpdir(), 'luthier-device-gradients-'))
const tiny = (name: string, config: Record<string, unknown> = {}) =>
  writeTinyModel(join(folder, name), { config })

const rows: Record<string, (i: number) => object> = {
  supervised: (i) => ({ prompt: `${i} is `, completion: i % 2 ? 'odd' : 'even' }),
  dpo: (i) => ({
    input: { messages: [{ role: 'user', content: `${i} is` }] },
    preferred_output: [{ role: 'assistant', content: i % 2 ? 'odd' : 'even' }],
    non_preferred_output: [{ role: 'assistant', content: i % 2 ? 'even' : 'odd' }],
  }),
  classification: (i) => ({ text: i % 2 ? 'abc def' : 'ghi. jkl', label: i % 2 ? 'odd' : 'even' }),
  embedding: (i) => ({ anchor: i % 2 ? 'abc def' : 'ghi', positive: i % 2 ? 'fed' : 'jkl mno' }),
}

const bert = await writeTinyEncoder(join(folder, 'bert'))
const llama = await tiny('llama')
const chat = await writeTinyModel(join(folder, 'chat'), { chat: true })
const lora = { rank: 4, dropout: 0.3, use_dora: true, use_rslora: true }
const cases: Record<string, Case> = {
  ...(stories && { stories260k: { model: stories } }),
  'llama, DoRA with dropout': { model: llama, hyperparameters: { lora } },
  'llama, all weights': { model: llama, hyperparameters: { adapter: 'none' } },
  'llama, dpo': { model: chat, method: 'dpo' },
  qwen3: { model: await tiny('qwen3', { model_type: 'qwen3', head_dim: 16 }) },
  gpt2: {
    model: await tiny('gpt2', {
      model_type: 'gpt2',
      n_embd: 32,
      n_layer: 2,
      n_head: 4,
      n_positions: 160,
    }),
  },
  'bert, classification': { model: bert, method: 'classification' },
  'bert, embedding with all weights': {
    model: bert,
    method: 'embedding',
    hyperparameters: { adapter: 'none' },
  },
}

async function gradientOf(wanted: Case, on: DeviceKind) {
  const { model, method: name = 'supervised', hyperparameters } = wanted
  const training = { path: join(folder, `${name}.jsonl`) }
  await writeFile(
    training.path,
    Array.from({ length: 6 }, (_, i) => JSON.stringify(rows[name]!(i))).join('\n'),
  )
  const { plan, ...report } = await inspect({
    type: 'inspect',
    model,
    training,
    method: name,
    hyperparameters: {
      n_epochs: 1,
      batch_size: 6,
      learning_rate_multiplier: 1,
      ...(name === 'dpo' && { beta: 0.1 }),
      ...hyperparameters,
    },
    compute: { device: on, threads: 1 },
  })
  if (!plan) throw new Error(JSON.stringify(report))
  const checkpoint = await openCheckpoint(model)
  const weights = await mapWeights(checkpoint, folder)
  const tokenizer = await openTokenizer(checkpoint)
  const method = methodOf(name)
  const { chat_template } = checkpoint
  const { max_sequence_length } = plan
  const options = { tokenizer, chat_template, max_sequence_length }
  const examples = await encodeFile(
    training.path,
    method.encoder(options, plan.facts ?? {}),
    plan.truncation,
  )
  const setup = { checkpoint, weights, plan, seed: 1, initial: undefined, examples }
  const subject = subjectOf(method, setup)
  // What starts as zero would hide the gradients behind it.
  const adapter = (await subject.start()).map((x, i) => x || 0.1 * (uniform(1, 5, i) - 0.5))
  await using trainer = await createTrainer(
    { step: 0, adapter, moments: createMoments(subject.parameters) },
    {
      objective: subject.objective,
      threads: 1,
      device: on,
      weightDecay: 0,
      maxGradNorm: 1,
      turn: async () => ({ [Symbol.dispose]() {} }),
    },
  )
  return await trainer.gradient(examples)
}

const errors: Record<string, number> = {}
for (const [name, wanted] of Object.entries(cases)) {
  const want = await gradientOf(wanted, 'cpu')
  const got = await gradientOf(wanted, device as DeviceKind)
  errors[`${name}: loss`] = relativeError([got.loss], [want.loss])
  errors[`${name}: gradient`] = relativeError(got.gradient, want.gradient)
}
await rm(folder, { recursive: true })
console.log(JSON.stringify(errors))
