// tsx bench/serving/prefix.ts MODEL [ROUNDS]: time to the first token behind a shared prompt of 1,000 tokens, the first
// time and when it is in the prefix cache; pairs one after the other, medians.

import { median, startServer } from './server.ts'

const [path, rounds = '9'] = process.argv.slice(2)
if (!path) throw new Error('tsx bench/serving/prefix.ts MODEL [ROUNDS]')

await using server = await startServer(path)
const words = (seed: number) =>
  Array.from(
    { length: 1000 },
    (_, i) => ['red', 'blue', 'one', 'two', 'sea', 'sun'][(i * 7 + (i >> 2) + seed * i) % 6],
  )
const ask = (shared: string, question: string) =>
  server.stream({ prompt: `${shared}\n${question}`, max_tokens: 4, temperature: 0 })

await ask('warm', 'up')
const cold: number[] = []
const warm: number[] = []
for (let round = 0; round < Number(rounds); round++) {
  const shared = `Number ${round}: ${words(round).join(' ')}`
  cold.push((await ask(shared, 'What is the first word?')).first)
  warm.push((await ask(shared, 'Which word comes last?')).first)
}
const usage = (await server.metrics()).get('vllm:prompt_tokens_total')!
console.log(
  `prompts of ${Math.round(usage / (2 * Number(rounds)))} tokens, ${rounds} pairs, ms to the first token`,
)
console.log(
  `cold ${median(cold).toFixed(0)}   warm ${median(warm).toFixed(0)}   ratio ${median(warm.map((w, i) => w / cold[i]!)).toFixed(3)}`,
)
