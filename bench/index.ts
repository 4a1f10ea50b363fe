// npm run bench: what the engine does on this machine with SmolLM2-135M-Instruct, each part in its own process.
// npm run bench -- training [options of peers/training.ts]: training steps beside PyTorch's, interleaved; the peers'
// Python environment is made by name where it is not there (LUTHIER_BENCH_PYTHON names a folder for it).

import { execFileSync, spawnSync } from 'node:child_process'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readConfig } from '../src/config.ts'
import { obtainBaseModel, PREFERRED } from '../src/quickstart/base-model.ts'
import { locateBaseModel, scanBaseModels } from '../src/service/models/base-models.ts'
import { measureApart } from './measure.ts'
import { writeFloat32Folder } from './peers/float32_folder.ts'

const rows = fileURLToPath(new URL('../examples/support-desk/train.jsonl', import.meta.url))
const { home, models, hub } = readConfig(process.env)
if (!(await scanBaseModels(models)).has(PREFERRED))
  for await (const event of obtainBaseModel({ folder: models, hub, sample: rows }))
    if (event.type === 'pulled') console.log(`pulled ${event.id}`)
const model = await locateBaseModel(models, PREFERRED)
const cache = join(home, 'cache', 'weights')

console.log(`${PREFERRED}, ${cpus().length} × ${cpus()[0]?.model}, Node ${process.version}`)
if (process.argv[2] === 'training') {
  await besidePeers(process.argv.slice(3))
} else await alone()

async function alone() {
  for (const [entry, args] of [
    ['./training.ts', [model, cache, rows]],
    ['./decoding.ts', [model, cache]],
  ] as const) {
    console.log(`\n${entry.slice(2, -3)}`)
    for (const { name, value, unit } of await measureApart(entry, [...args]))
      console.log(`  ${name.padEnd(42)} ${value.toFixed(value < 100 ? 1 : 0).padStart(8)} ${unit}`)
  }
}

async function besidePeers(options: string[]) {
  const both = join(home, 'cache', 'bench', `${PREFERRED}-f32`)
  await writeFloat32Folder(model, both)
  const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))
  const own = process.env.LUTHIER_BENCH_PYTHON
  const made = execFileSync(here('./peers/environment.sh'), own ? [own] : [], { encoding: 'utf8' })
  const [folder, library] = made.trim().split('\n')
  const args = [both, cache, '--python', join(folder!, 'bin', 'python')]
  if (library) args.push('--preload', library)
  const { status } = spawnSync(
    process.execPath,
    ['--import', 'tsx', here('./peers/training.ts'), ...args, ...options],
    { stdio: 'inherit' },
  )
  process.exitCode = status ?? 1
}
