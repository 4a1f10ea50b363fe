// llama.cpp's side of decoding.ts: FOLDER MODEL THREADS TOKENS LONG; a line `one 3` in, tokens/s out.
// A file of its own: node-llama-cpp forks it with the same arguments of Node.

import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const [folder, model_path, threads, TOKENS, LONG] = process.argv.slice(2)
const entry = join(folder, 'node_modules/node-llama-cpp/dist/index.js')
const { getLlama } = await import(pathToFileURL(entry).href)
const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error' })
const model = await llama.loadModel({ modelPath: model_path })
const context = await model.createContext({
  sequences: 8,
  contextSize: 1024,
  threads: Number(threads),
  batchSize: 512,
})
const text = 'Write a long letter to a friend about a walk along the coast in autumn. '
const prompt = model.tokenize(text.repeat(40))
const sequences = Array.from({ length: 8 }, () => context.getSequence())
process.stdout.write('ready\n')

async function write(sequence, salt) {
  const tokens = prompt.slice(salt, salt + 64)
  let n = 0
  let start = 0
  for await (const _ of sequence.evaluate(tokens, { temperature: 0.8, yieldEogToken: true })) {
    if (n++ === 0) start = performance.now()
    if (n > Number(TOKENS)) break
  }
  return (performance.now() - start) / 1000
}

for await (const line of createInterface({ input: process.stdin })) {
  const [what, salt] = line.split(' ')
  for (const sequence of sequences) await sequence.clearHistory()
  const begun = performance.now()
  let result = 0
  if (what === 'prompt') {
    for await (const _ of sequences[0].evaluate(prompt.slice(0, Number(LONG)))) break
    result = Number(LONG) / ((performance.now() - begun) / 1000)
  } else {
    const n = what === 'eight' ? 8 : 1
    const asked = sequences.slice(0, n).map((sequence, i) => write(sequence, Number(salt) + i))
    result = (n * Number(TOKENS)) / Math.max(...(await Promise.all(asked)))
  }
  process.stdout.write(`${result}\n`)
}
process.exit()
