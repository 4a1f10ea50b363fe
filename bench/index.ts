// npm run bench: what the engine does on this machine with SmolLM2-135M-Instruct, each part in its own process.

import { cpus } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readConfig } from '../src/config.ts'
import { obtainBaseModel, PREFERRED } from '../src/quickstart/base-model.ts'
import { locateBaseModel, scanBaseModels } from '../src/service/models/base-models.ts'
import { measureApart } from './measure.ts'

const rows = fileURLToPath(new URL('../examples/support-desk/train.jsonl', import.meta.url))
const { home, models, hub } = readConfig(process.env)
if (!(await scanBaseModels(models)).has(PREFERRED))
  for await (const event of obtainBaseModel({ folder: models, hub, sample: rows }))
    if (event.type === 'pulled') console.log(`pulled ${event.id}`)
const model = await locateBaseModel(models, PREFERRED)
const cache = join(home, 'cache', 'weights')

console.log(`${PREFERRED}, ${cpus().length} × ${cpus()[0]?.model}, Node ${process.version}`)
for (const [entry, args] of [
  ['./training.ts', [model, cache, rows]],
  ['./decoding.ts', [model, cache]],
] as const) {
  console.log(`\n${entry.slice(2, -3)}`)
  for (const { name, value, unit } of await measureApart(entry, [...args]))
    console.log(`  ${name.padEnd(42)} ${value.toFixed(value < 100 ? 1 : 0).padStart(8)} ${unit}`)
}
