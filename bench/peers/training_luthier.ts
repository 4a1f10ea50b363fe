// Our side of `npm run bench -- training`: LoRA steps on a model, timed when it is told to.
//
//   training_luthier.ts MODEL CACHE PRECISION KEEP ROWS LENGTH SUPERVISED
//
// Says and hears the same as training_pytorch.py.

import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { createInterface } from 'node:readline'
import type { Example } from '../../src/engine/datasets/example.ts'
import { initialAdapter, loraLayout } from '../../src/engine/models/adapters.ts'
import { withInt8 } from '../../src/engine/models/int8.ts'
import type { Keep } from '../../src/engine/models/keep.ts'
import { uniform } from '../../src/engine/random.ts'
import { openTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { supervised } from '../../src/engine/train/methods/supervised.ts'
import { createMoments } from '../../src/engine/train/optimizer.ts'
import { createTrainer } from '../../src/engine/train/trainer.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'
import { familyOf } from '../../src/engine/weights/model-config.ts'

const [model, cache, precision, keep, ...numbers] = process.argv.slice(2)
const [rows, length, every] = numbers.map(Number)
if (!model || !cache || !rows || !length || !every) throw new Error('see the head of this file')

const checkpoint = await openCheckpoint(model)
const plain = await mapWeights(checkpoint, cache)
const weights =
  precision === 'int8' ? await withInt8(plain, cache, await openTokenizer(checkpoint)) : plain
const target_modules = familyOf(weights.config).linear
const layout = loraLayout(weights, { rank: 8, alpha: 16, target_modules })
const { vocab_size } = weights.config
const examples = Array.from(
  { length: rows },
  (_, row): Example => ({
    line: row + 1,
    tokens: Int32Array.from({ length }, (_, i) => Math.floor(uniform(0, row, i) * vocab_size)),
    weights: Float32Array.from({ length }, (_, i) => Number(i > 0 && (i - 1) % every === 0)),
  }),
)
await using trainer = await createTrainer(
  {
    step: 0,
    adapter: initialAdapter(layout, 0),
    moments: createMoments(layout.parameters),
  },
  {
    objective: supervised.objective({
      weights,
      layout,
      shape: { rows, length, keep: keep as Keep },
    }),
    threads: availableParallelism(),
    weightDecay: 0.01,
    maxGradNorm: 1,
    turn: async () => ({ [Symbol.dispose]() {} }),
  },
)
console.log('ready')
for await (const line of createInterface({ input: process.stdin })) {
  let loss = 0
  const start = performance.now()
  for (let i = 0; i < Number(line); i++) ({ loss } = await trainer.step(examples, 1e-4))
  const seconds = (performance.now() - start) / 1000
  const peak = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))
  console.log(`${seconds} ${Number(peak?.[1]) / 1024} ${loss}`)
}
