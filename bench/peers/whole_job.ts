// A whole job beside PEFT's: wall time from the start of the process to the same validation loss, on banking77 rows.
//
//   npx tsx bench/peers/whole_job.ts DATA MODEL OUT [--python PYTHON] [--rows 800] [--sides luthier-16,peft-16-grouped-bf16,…]
//
// DATA is the folder of banking77's train.csv, MODEL a Hugging Face folder that both sides read. Questions of all 77
// intents are learned as prompt and completion; 200 others are the validation. Every side is a process of its own, and
// keeps what it came to in OUT/<side>.json: a side that is there already does not run again, so that one can take them in
// turns. The loss that all must reach is the highest of those that they end at.

import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { encodeFile, rowEncoder } from '../../src/engine/datasets/encode.ts'
import { uniform } from '../../src/engine/random.ts'
import { openTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { readQuestions } from '../banking77.ts'

export interface Job {
  readonly train: readonly { tokens: number[]; weights: number[] }[]
  readonly valid: Job['train']
  readonly epochs: number
  readonly learning_rate: number
  readonly warmup_ratio: number
  readonly weight_decay: number
  readonly rank: number
  readonly alpha: number
  /** Times that the validation loss is asked for, about. */
  readonly evaluations: number
  readonly threads: number
}

interface Told {
  readonly start: number
  readonly points: readonly [seconds: number, loss: number][]
  readonly reason?: string
}

const VALIDATION = 200

async function writeJob(data: string, model: string, out: string, rows: number): Promise<void> {
  const questions = (await readQuestions(join(data, 'train.csv')))
    .map((question, i) => ({ ...question, key: uniform(7, 0, i) }))
    .sort((a, b) => a.key - b.key)
    .slice(0, rows + VALIDATION)
  const checkpoint = await openCheckpoint(model)
  const encoder = rowEncoder({
    tokenizer: await openTokenizer(checkpoint),
    chat_template: undefined,
    max_sequence_length: 1024,
  })
  const write = async (name: string, some: typeof questions) => {
    const file = join(out, `${name}.jsonl`)
    const lines = some.map(({ text, label }) =>
      JSON.stringify({
        prompt: `Bank customer's message: ${text}\nIntent:`,
        completion: ` ${label}`,
      }),
    )
    await writeFile(file, `${lines.join('\n')}\n`)
    const examples = await encodeFile(file, encoder, undefined)
    return examples.map(({ tokens, weights }) => ({ tokens: [...tokens], weights: [...weights] }))
  }
  const job: Job = {
    train: await write('train', questions.slice(VALIDATION)),
    valid: await write('valid', questions.slice(0, VALIDATION)),
    epochs: 2,
    learning_rate: 1e-3,
    warmup_ratio: 0.05,
    weight_decay: 0.01,
    rank: 8,
    alpha: 16,
    evaluations: 16,
    threads: availableParallelism(),
  }
  await writeFile(join(out, 'job.json'), JSON.stringify(job))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      python: { type: 'string', default: 'python3' },
      rows: { type: 'string', default: '800' },
      sides: {
        type: 'string',
        default: 'luthier-16,peft-16-grouped-bf16,peft-32-grouped-bf16,peft-8-shuffled-bf16',
      },
    },
  })
  const [data, model, out] = positionals.map((path) => resolve(path))
  if (!data || !model || !out) throw new Error('see the head of this file')
  await mkdir(out, { recursive: true })
  if (!existsSync(join(out, 'job.json'))) await writeJob(data, model, out, Number(values.rows))
  const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))
  const told = new Map<string, Told>()
  for (const side of values.sides.split(',')) {
    const file = join(out, `${side}.json`)
    if (!existsSync(file)) {
      const [who, batch, ...how] = side.split('-')
      const [program, ...args] =
        who === 'luthier'
          ? [
              process.execPath,
              '--import',
              'tsx',
              here('./whole_job_luthier.ts'),
              model,
              out,
              join(out, 'cache'),
              batch!,
            ]
          : [values.python, here('./whole_job_peft.py'), model, out, batch!, ...how]
      await writeFile(file, execFileSync(program!, args, { encoding: 'utf8' }))
    }
    told.set(side, JSON.parse(await readFile(file, 'utf8')) as Told)
  }
  const goal = Math.max(...[...told.values()].map(({ points }) => points.at(-1)![1]))
  console.log(`validation loss ${goal.toFixed(3)}`)
  let ours: number | undefined
  for (const [side, { start, points, reason }] of told) {
    const at = points.find(([, loss]) => loss <= goal)![0]
    ours ??= at
    console.log(
      `  ${side.padEnd(24)} ${at.toFixed(0).padStart(5)} s, ${(at / ours).toFixed(2)} × the first; steps from ${start.toFixed(0)} s on, ended at ${points.at(-1)![0].toFixed(0)} s with ${points.at(-1)![1].toFixed(3)}${reason ? `; ${reason}` : ''}`,
    )
  }
}
