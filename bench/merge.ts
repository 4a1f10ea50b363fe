// Merging beside mergekit: time and peak memory of both, in turn, over models that are made for it and removed after.
//
//   npx tsx bench/merge.ts FOLDER [--mergekit mergekit-yaml] [--sizes 1,4] [--models 2,4] [--methods linear,ties] [--rounds 3]
//     [--only mergekit] [--most SECONDS] [--keep]
//
// FOLDER needs room for one more model than is merged, and a half. With --keep the models stay, and are taken by the next run (without rounds
// they are made alone). What takes longer than --most is stopped there, and printed with a '>'. Models are llamas in bfloat16 of one width (2048, 32,000
// tokens): larger ones have more layers. Resident memory counts mapped files, of which mergekit has its inputs; anonymous
// memory does not. Both are sums over a side's processes, sampled every 20 ms. Of rounds the medians are printed.

import { spawn } from 'node:child_process'
import { createReadStream, existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, open, rm, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { layoutSafetensors } from '../src/engine/weights/safetensors.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    mergekit: { type: 'string' },
    sizes: { type: 'string', default: '1,4' },
    models: { type: 'string', default: '2,4' },
    methods: { type: 'string', default: 'linear,ties' },
    rounds: { type: 'string', default: '3' },
    only: { type: 'string' },
    most: { type: 'string', default: '3600' },
    keep: { type: 'boolean', default: false },
  },
})
if (!positionals[0]) throw new Error('usage: merge.ts FOLDER [--mergekit PROGRAM] …')
const folder = join(resolve(positionals[0]), 'luthier-merge-bench')
const numbers = (list: string) => list.split(',').map(Number)

const WIDTH = 2048
const INNER = 5632
const TOKENS = 32_000

function* shapesOf(layers: number): Generator<[string, number[]]> {
  yield ['model.embed_tokens.weight', [TOKENS, WIDTH]]
  yield ['lm_head.weight', [TOKENS, WIDTH]]
  yield ['model.norm.weight', [WIDTH]]
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}.`
    for (const name of ['q', 'k', 'v', 'o'])
      yield [`${at}self_attn.${name}_proj.weight`, [WIDTH, WIDTH]]
    for (const name of ['gate', 'up']) yield [`${at}mlp.${name}_proj.weight`, [INNER, WIDTH]]
    yield [`${at}mlp.down_proj.weight`, [WIDTH, INNER]]
    for (const name of ['input', 'post_attention']) yield [`${at}${name}_layernorm.weight`, [WIDTH]]
  }
}

/** A llama of so many gigabytes; every model has other weights. */
async function writeModel(place: string, gigabytes: number, seed: number) {
  await mkdir(place, { recursive: true })
  const layer = 4 * WIDTH * WIDTH + 3 * WIDTH * INNER + 2 * WIDTH
  const layers = Math.round((gigabytes * 1e9 - 4 * TOKENS * WIDTH) / (2 * layer))
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: WIDTH,
    intermediate_size: INNER,
    num_hidden_layers: layers,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    vocab_size: TOKENS,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    hidden_act: 'silu',
    tie_word_embeddings: false,
    dtype: 'bfloat16',
    torch_dtype: 'bfloat16',
  }
  const tensors = [...shapesOf(layers)].map(([name, dims]) => ({
    name,
    dims,
    dtype: 'BF16' as const,
  }))
  const { header, size } = layoutSafetensors(tensors, { format: 'pt' }, 1)
  const file = await open(join(place, 'model.safetensors'), 'w')
  await file.write(header)
  // Random signs and mantissas of numbers between 2^-7 and 2^-5, in the order of a generator of Marsaglia's; eight
  // megabytes of them, again and again.
  let state = (seed * 0x9e3779b9) | 1
  const piece = new Uint16Array(2 ** 22)
  for (let i = 0; i < piece.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    piece[i] = (state & 0x80ff) | 0x3c00
  }
  for (let left = size; left > 0; left -= piece.byteLength)
    await file.write(new Uint8Array(piece.buffer, 0, Math.min(left, piece.byteLength)))
  await file.close()
  await writeFile(join(place, 'config.json'), JSON.stringify(config))
}

interface Run {
  seconds: number
  /** Stopped before its end. */
  over: boolean
  resident: number
  anonymous: number
}

/** Runs one side, and looks at its memory while it runs. */
async function measure(command: readonly string[]): Promise<Run> {
  const [program, ...args] = command
  const started = performance.now()
  const child = spawn(program!, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.on('data', (chunk) => {
    said = (said + chunk).slice(-4000)
  })
  const most = { resident: 0, anonymous: 0 }
  const timer = setInterval(() => {
    const [resident, anonymous] = memoryOf(child.pid!)
    most.resident = Math.max(most.resident, resident)
    most.anonymous = Math.max(most.anonymous, anonymous)
  }, 20)
  let over = false
  const limit = setTimeout(() => {
    over = true
    child.kill('SIGKILL')
  }, Number(values.most) * 1000)
  const code = await new Promise((done) => child.once('exit', done))
  clearInterval(timer)
  clearTimeout(limit)
  if (code !== 0 && !over) throw new Error(`${command.join(' ')}: ${said}`)
  return { seconds: (performance.now() - started) / 1000, over, ...most }
}

/** Megabytes of a process and its children. */
function memoryOf(pid: number): [number, number] {
  const parents = new Map<number, number[]>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const parent = Number(/^PPid:\s+(\d+)/m.exec(statusOf(name))?.[1])
    parents.set(parent, [...(parents.get(parent) ?? []), Number(name)])
  }
  const sum: [number, number] = [0, 0]
  for (const waiting = [pid]; waiting.length > 0; ) {
    const one = waiting.pop()!
    waiting.push(...(parents.get(one) ?? []))
    const status = statusOf(String(one))
    sum[0] += Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1000
    sum[1] += Number(/^RssAnon:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1000
  }
  return sum
}

/** Empty where the process has gone meanwhile. */
function statusOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8')
  } catch {
    return ''
  }
}

/** Brings a model into the page cache, so that no side finds more of it there than the other. */
async function readThrough(place: string) {
  for await (const _ of createReadStream(join(place, 'model.safetensors'), {
    highWaterMark: 2 ** 22,
  }));
}

const configOf = (method: string, names: readonly string[]) =>
  JSON.stringify({
    merge_method: method,
    ...(method !== 'linear' && { base_model: names[0] }),
    models: names.map((model, i) => ({
      model,
      ...((i > 0 || method === 'linear') && {
        parameters: { weight: 1 / names.length, ...(method !== 'linear' && { density: 0.5 }) },
      }),
    })),
    dtype: 'bfloat16',
  })

const cli = fileURLToPath(new URL('../src/cli/luthier.ts', import.meta.url))
const out = join(folder, 'out')
const config = join(folder, 'merge.yml')
const all: Readonly<Record<string, readonly string[]>> = {
  luthier: [process.execPath, '--import', 'tsx', cli, 'merge', config, out],
  ...(values.mergekit && {
    mergekit: [values.mergekit, config, out, '--no-copy-tokenizer', '--no-write-model-card'],
  }),
}

const sides = Object.entries(all).filter(([side]) => !values.only || side === values.only)

const median = (of: readonly number[]) => of.toSorted((a, b) => a - b)[Math.floor(of.length / 2)]!
console.log(
  `${availableParallelism()} processors, Node ${process.version}, median of ${values.rounds}`,
)
try {
  for (const gigabytes of numbers(values.sizes)) {
    const names: string[] = []
    for (const count of numbers(values.models)) {
      while (names.length < count) {
        const place = join(folder, `${gigabytes}-${names.length}`)
        if (!existsSync(join(place, 'config.json')))
          await writeModel(place, gigabytes, names.length + 1)
        names.push(place)
      }
      for (const method of values.methods.split(',')) {
        await writeFile(config, configOf(method, names.slice(0, count)))
        const runs: Record<string, Run[]> = {}
        for (let round = 0; round < Number(values.rounds); round++)
          for (const [side, command] of sides) {
            for (const name of names.slice(0, count)) await readThrough(name)
            const run = await measure(command)
            runs[side] = [...(runs[side] ?? []), run]
            await rm(out, { recursive: true, force: true })
          }
        for (const [side, of] of Object.entries(runs)) {
          const [seconds, resident, anonymous] = (
            ['seconds', 'resident', 'anonymous'] as const
          ).map((key) => median(of.map((run) => run[key])))
          const least = of.some(({ over }) => over) ? '>' : ' '
          console.log(
            `${count} × ${gigabytes} GB ${method.padEnd(8)} ${side.padEnd(9)} ${least}${seconds!.toFixed(1).padStart(6)} s  ${resident!.toFixed(0).padStart(6)} MB resident  ${anonymous!.toFixed(0).padStart(6)} MB anonymous`,
          )
        }
      }
    }
    if (!values.keep) for (const place of names) await rm(place, { recursive: true, force: true })
  }
} finally {
  if (!values.keep) await rm(folder, { recursive: true, force: true })
}
