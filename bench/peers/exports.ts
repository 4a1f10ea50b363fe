// What we export, read by others: PEFT the adapter, transformers the merged folder, llama.cpp each GGUF.
//
//   npx tsx bench/peers/exports.ts MODEL WORK --python PYTHON --llama FOLDER [--parts adapter,folder,f32,f16,quantised]
//
// MODEL is a Hugging Face folder in float32; PYTHON has torch, transformers and peft; FOLDER is one where
// `npm i node-llama-cpp@3.22.1` was run. PEFT trains an adapter of MODEL, which is exported in every format. Twenty texts,
// teacher-forced: the largest difference of a token's log-probability between the reader and us, and perplexities beside
// those of llama.cpp's own quantisation of the same float32 file.

import { execFile } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { mkdir, open } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { exportFiles } from '../../src/engine/export/export.ts'
import type { ExportDtype, ExportFormat } from '../../src/engine/export/request.ts'
import { checkImport } from '../../src/engine/import/check.ts'
import { Generator } from '../../src/engine/infer/generate.ts'
import { openTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { readGguf } from '../../src/engine/weights/gguf.ts'
import { TEXTS } from './exports_texts.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string' },
    llama: { type: 'string' },
    parts: { type: 'string', default: 'adapter,folder,f32,f16,quantised' },
  },
})
const [base = '', work = ''] = positionals.map((path) => resolve(path))
const { python, llama } = values
if (!base || !work || !python || !llama)
  throw new Error('usage: exports.ts MODEL WORK --python PYTHON --llama FOLDER')

const beside = (name: string) => fileURLToPath(new URL(name, import.meta.url))
const run = (command: string, args: string[], input = '') =>
  new Promise<string>((done, fail) => {
    const child = execFile(command, args, { maxBuffer: 1 << 26 }, (error, stdout, stderr) =>
      error
        ? fail(
            new Error(`${basename(args[0] ?? command)}: ${stderr.slice(-2000)}`, { cause: error }),
          )
        : done(stdout),
    )
    child.stdin?.end(input)
  })

await mkdir(join(work, 'cache'), { recursive: true })
const adapter = join(work, 'peft')
if (!existsSync(adapter)) await run(python, [beside('exports_hf.py'), 'adapter', base, adapter])
// As an import looks at it.
for await (const event of checkImport({ path: adapter, base }))
  if (event.type === 'checked') console.log(`PEFT's adapter: ${event.parameters} parameters`)

const source = { base, tuned: join(adapter, 'adapter_model.safetensors') }
async function exported(format: ExportFormat, dtype: ExportDtype): Promise<string> {
  const folder = join(work, `${format}-${dtype}`)
  await mkdir(folder, { recursive: true })
  const wanted = { source, name: 'model', format, dtype, shard_bytes: 200e6 }
  for (const { path, chunks } of await exportFiles(wanted)) {
    await using file = await open(join(folder, path), 'w')
    for await (const piece of chunks()) await file.write(piece)
  }
  return format === 'gguf' ? join(folder, 'model.gguf') : folder
}

const tokenizer = await openTokenizer(await openCheckpoint(base))
const lists = TEXTS.map((text) => tokenizer.encode(text))
const input = JSON.stringify(lists)
const count = lists.reduce((sum, ids) => sum + ids.length - 1, 0)
console.log(`${lists.length} texts, ${count} tokens are told`)

type Told = number[][]
const inPython = async (...args: string[]): Promise<Told> =>
  JSON.parse(await run(python, [beside('exports_hf.py'), ...args], input))
const byPython = (...args: string[]) => inPython('logprobs', ...args)
const byLlama = async (file: string): Promise<Told> =>
  JSON.parse(await run(process.execPath, [beside('exports_llama.mjs'), llama, file], input))
async function byUs(model: string, tuned?: string): Promise<Told> {
  const generator = new Generator({ threads: 2, precision: 'fp32' })
  const target = { model, cache: join(work, 'cache'), ...(tuned && { adapter: tuned }) }
  const { signal } = new AbortController()
  const turn = async () => ({ [Symbol.dispose]() {} })
  const told: Told = []
  for (const tokens of lists) {
    const request = {
      type: 'generate' as const,
      target,
      prompt: { tokens },
      max_tokens: 0,
      stop: [],
      n: 1,
      sampling: { temperature: 1, top_p: 1, seed: 0 },
      echo: true,
      logprobs: 1,
    }
    for await (const event of generator.handle(request, { signal, turn }))
      if (event.type === 'echo' && event.tokens)
        told.push(event.tokens.slice(1).map(({ logprob }) => logprob!))
  }
  for await (const _ of generator.handle({ type: 'unload' }, { signal, turn }));
  return told
}

const has = (part: string) => values.parts.split(',').includes(part)
const worst = (a: Told, b: Told) =>
  Math.max(...a.flatMap((row, i) => row.map((x, j) => Math.abs(x - b[i]![j]!))))
const perplexity = (told: Told) => Math.exp(-told.flat().reduce((sum, x) => sum + x, 0) / count)
const show = (name: string, figures: Record<string, number>) =>
  console.log(
    [name, ...Object.entries(figures).map(([key, x]) => `${key} ${x.toPrecision(4)}`)].join('; '),
  )

const float32 = await exported('gguf', 'f32')
await unquantised()
const bins = join(llama, 'node_modules/@node-llama-cpp/linux-x64/bins')
const libraries = join(bins, readdirSync(bins)[0]!)
for (const dtype of has('quantised') ? (['q8_0', 'q4_0', 'q4_1', 'q4_k'] as const) : []) {
  const file = await exported('gguf', dtype)
  const own = join(work, `llama-${dtype}.gguf`)
  if (!existsSync(own))
    await run(python, [beside('exports_quantise.py'), libraries, float32, own, dtype])
  const [us, them] = [perplexity(await byUs(file)), perplexity(await byUs(own))]
  const [a, b] = [(await readGguf(file)).tensors, (await readGguf(own)).tensors]
  const same = [...a].filter(([name, { dtype }]) => b.get(name)?.dtype === dtype).length
  show(`GGUF ${dtype}, read here`, {
    'perplexity of our file': us,
    "of llama.cpp's own": them,
    ratio: us / them,
    'tensors of the same type': same,
    'of all': a.size,
  })
}

async function unquantised() {
  const parts = values.parts.split(',')
  if (parts.length === 1 && parts[0] === 'quantised') return
  const ours = await byUs(base, source.tuned)
  show('tuned, ours', {
    perplexity: perplexity(ours),
    'off the base': worst(ours, await byUs(base)),
  })
  if (has('adapter'))
    show('adapter in PEFT', {
      worst: worst(ours, await byPython(base, await exported('peft', 'f32'))),
    })
  for (const dtype of has('folder') ? (['f32', 'f16', 'bf16'] as const) : []) {
    const folder = await exported('hf', dtype)
    const theirs = await byPython(folder)
    show(`folder ${dtype} in transformers`, {
      'worst beside float32': worst(ours, theirs),
      'beside the same folder here': worst(await byUs(folder), theirs),
    })
  }
  for (const dtype of (['f32', 'f16'] as const).filter(has)) {
    const file = dtype === 'f32' ? float32 : await exported('gguf', dtype)
    const theirs = await byLlama(file)
    show(`GGUF ${dtype} in llama.cpp`, {
      'worst beside float32': worst(ours, theirs),
      'beside the same file here': worst(await byUs(file), theirs),
      ...(dtype === 'f16' && {
        'beside transformers, activations in float16': worst(
          await inPython('halves', await exported('hf', 'f16')),
          theirs,
        ),
      }),
    })
  }
}
