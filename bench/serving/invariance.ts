// tsx bench/serving/invariance.ts MODEL [ROUNDS]: what `batch_invariant` costs at 1, 4 and 16 streams, both ways in turns.

import { median, startServer } from './server.ts'

const [path, rounds = '5'] = process.argv.slice(2)
if (!path) throw new Error('tsx bench/serving/invariance.ts MODEL [ROUNDS]')
const TOKENS = 48

await using server = await startServer(path)
async function rate(streams: number, batch_invariant: boolean, round: number): Promise<number> {
  const began = performance.now()
  await Promise.all(
    Array.from({ length: streams }, (_, i) =>
      server.stream({
        prompt: `Letter ${round}.${i}: dear friend, `,
        max_tokens: TOKENS,
        seed: i,
        logit_bias: { 0: -100, 2: -100 },
        batch_invariant,
      }),
    ),
  )
  return (streams * TOKENS * 1000) / (performance.now() - began)
}

await rate(1, true, -1)
for (const streams of [1, 4, 16]) {
  const plain: number[] = []
  const invariant: number[] = []
  for (let round = 0; round < Number(rounds); round++) {
    plain.push(await rate(streams, false, round))
    invariant.push(await rate(streams, true, round))
  }
  const ratio = median(invariant.map((x, i) => x / plain[i]!))
  console.log(
    `${String(streams).padStart(2)} streams: ${median(plain).toFixed(0)} tokens/s, batch_invariant ${median(invariant).toFixed(0)}, ${ratio.toFixed(2)} ×`,
  )
}
