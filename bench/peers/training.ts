// npm run bench -- training: our steps beside PyTorch's, interleaved, each side in a process of its own.
//
//   npx tsx bench/peers/training.ts MODEL CACHE [--python PYTHON] [--rounds 5] [--shapes 1x256,4x128] [--sides a,b] [--preload LIBRARY]
//
// MODEL is a Hugging Face folder with float32 weights, which both sides read. PYTHON is one of an environment with
// torch, transformers and peft; LIBRARY is what PyTorch allocates by (libtcmalloc_minimal.so.4: without it, it is slower by a
// third and more). Of each side the median over rounds is printed, and the ratio to the fastest peer.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string', default: 'python3' },
    rounds: { type: 'string', default: '5' },
    shapes: { type: 'string', default: '1x256,4x128,1x512,8x64/4' },
    preload: { type: 'string' },
    sides: { type: 'string', default: 'int8,fp32,torch-bf16,torch-autocast' },
  },
})
const [model, cache] = positionals
if (!model || !cache) throw new Error('usage: training.ts MODEL CACHE [--python PYTHON] …')
const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/** The command of a side: `int8`, `int8-blocks`, `torch-bf16`, `torch-bf16-checkpointing`. */
function commandOf(side: string, [rows, length, every]: readonly string[]): string[] {
  const shape = [rows!, length!, every!]
  const [first, second, third] = side.split('-')
  if (first === 'torch')
    return [
      values.python,
      here('./training_pytorch.py'),
      model!,
      second!,
      ...shape,
      ...(third ? [`--${third}`] : []),
    ]
  const ours = [here('./training_luthier.ts'), model!, cache!, first!, second ?? 'everything']
  return [process.execPath, '--import', 'tsx', ...ours, ...shape]
}

/** A side that has its model loaded, and runs steps when asked. */
class Side {
  readonly name: string
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>
  readonly seconds: number[] = []
  peak = 0

  constructor(name: string, shape: readonly string[]) {
    this.name = name
    const [program, ...args] = commandOf(name, shape)
    const preload = name.startsWith('torch') && values.preload
    const env = { ...process.env, ...(preload && { LD_PRELOAD: preload }) }
    this.#child = spawn(program!, args, { stdio: ['pipe', 'pipe', 'ignore'], env })
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]()
  }

  async ready() {
    if ((await this.#lines.next()).value !== 'ready') throw new Error(`${this.name} did not start`)
    await this.run(1, false)
  }

  async run(steps: number, counts = true) {
    this.#child.stdin!.write(`${steps}\n`)
    const { value } = await this.#lines.next()
    if (value === undefined) throw new Error(`${this.name} ended`)
    const [seconds, peak] = (value as string).split(' ').map(Number)
    if (counts) this.seconds.push(seconds! / steps)
    this.peak = peak!
  }

  async end() {
    this.#child.stdin!.end()
    if (this.#child.exitCode === null) await once(this.#child, 'exit')
  }
}

const median = (xs: readonly number[]) => [...xs].sort((a, b) => a - b)[xs.length >> 1]!

for (const shape of values.shapes.split(',')) {
  const [size, every = '1'] = shape.split('/')
  const [rows, length] = size!.split('x')
  const tokens = Number(rows) * Number(length)
  console.log(`\n${size} tokens, ${every === '1' ? 'all' : `every ${every}th`} supervised`)
  const sides: Side[] = []
  // One after the other: loading is not to be timed against loading.
  for (const name of values.sides.split(',')) {
    const side = new Side(name, [rows!, length!, every])
    await side.ready()
    sides.push(side)
  }
  for (let round = 0; round < Number(values.rounds); round++)
    for (const side of sides) await side.run(2)
  const speed = (side: Side) => tokens / median(side.seconds)
  const peers = sides.filter(({ name }) => name.startsWith('torch'))
  const best = Math.max(...peers.map(speed))
  for (const side of sides) {
    const ratio = peers.length > 0 ? `${(speed(side) / best).toFixed(2)} × the best peer` : ''
    console.log(
      `  ${side.name.padEnd(26)} ${speed(side).toFixed(0).padStart(5)} tokens/s ${side.peak.toFixed(0).padStart(6)} MB  ${ratio}`,
    )
  }
  for (const side of sides) await side.end()
}
