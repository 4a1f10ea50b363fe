// tsx bench/serving/guesses.ts MODEL CACHE [ROUNDS]: one stream with and without prompt lookup, in turns: a text that is copied,
// one that repeats itself, and a letter. Greedy; how many tokens were guessed and drawn; whether the texts are equal.

import type {
  InferThreadData,
  InferThreadEvent,
  InferThreadRequest,
} from '../../src/engine/infer/request.ts'
import { spawn } from '../../src/engine/runtime/thread.ts'
import { median } from './server.ts'

const [model, cache, rounds = '5'] = process.argv.slice(2)
if (!model || !cache) throw new Error('usage: guesses.ts MODEL CACHE [ROUNDS]')

const LIST = [
  'const apples = fruits.filter((fruit) => fruit.kind === "apple")',
  'const pears = fruits.filter((fruit) => fruit.kind === "pear")',
  'const plums = fruits.filter((fruit) => fruit.kind === "plum")',
].join('\n')
const PROMPTS = {
  copied: `Repeat this code exactly:\n${LIST}\n${LIST}\n`,
  repeating: `${LIST}\nconst grapes = `,
  letter: 'Dear friend, today I walked along the coast in autumn and ',
}
const entry = new URL('../../src/engine/infer/worker.ts', import.meta.url)
const open = (speculate: boolean) =>
  spawn<InferThreadRequest, InferThreadEvent>(entry, undefined, {
    speculate,
  } satisfies InferThreadData)
await using plain = open(false)
await using guessing = open(true)

async function answer(by: typeof plain, text: string) {
  let [first, count, said] = [0, 0, '']
  for await (const event of by.run({
    type: 'generate',
    target: { model: model!, cache: cache! },
    prompt: { text },
    max_tokens: 129,
    stop: [],
    n: 1,
    sampling: { temperature: 0, top_p: 1, seed: 1, logit_bias: { 0: -100, 2: -100 } },
  })) {
    if (event.type === 'delta') {
      first ||= performance.now()
      said += event.text
    }
    if (event.type === 'finish') count = event.completion_tokens
  }
  return { rate: ((count - 1) * 1000) / (performance.now() - first), said }
}

async function guesses() {
  for await (const event of guessing.run({ type: 'inside' }))
    if (event.type === 'inside') return event.guesses
  throw new Error('nothing was told')
}

for (const [name, text] of Object.entries(PROMPTS)) {
  const [before, without, rates] = [await guesses(), [] as number[], [] as number[]]
  let equal = true
  for (let round = -1; round < Number(rounds); round++) {
    const a = await answer(plain, text)
    const b = await answer(guessing, text)
    equal &&= a.said === b.said
    if (round < 0) continue
    without.push(a.rate)
    rates.push(b.rate)
  }
  const after = await guesses()
  const ratio = median(rates.map((rate, i) => rate / without[i]!))
  console.log(
    `${name.padEnd(10)} without ${median(without).toFixed(0)} tokens/s, with ${median(rates).toFixed(0)}, ${ratio.toFixed(2)} ×; guessed ${after.drafted - before.drafted}, drawn ${after.accepted - before.accepted}; texts ${equal ? 'equal' : 'differ'}`,
  )
}
