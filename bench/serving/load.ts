// tsx bench/serving/load.ts MODEL [SECONDS] [CLIENTS]: so many clients that stream one answer after the other, a third of
// which go away in the midst of it at random. Is memory flat over the last half, is no slot lost, is each answer whole.

import { setTimeout as sleep } from 'node:timers/promises'
import { uniform } from '../../src/engine/random.ts'
import { median, quantile, startServer } from './server.ts'

const [path, seconds = '300', clients = '200'] = process.argv.slice(2)
if (!path) throw new Error('tsx bench/serving/load.ts MODEL [SECONDS] [CLIENTS]')

await using server = await startServer(path)
await server.stream({ prompt: 'warm up', max_tokens: 4 })
const end = performance.now() + Number(seconds) * 1000
const counts = { whole: 0, cut: 0, left: 0, failed: 0, refused: 0 }
const firsts: number[] = []

async function client(id: number) {
  for (let turn = 0; performance.now() < end; turn++) {
    const draw = (i: number) => uniform(id, turn, i)
    const leaves = draw(0) < 1 / 3
    const away = new AbortController()
    const timer = leaves ? setTimeout(() => away.abort(), draw(1) * 15_000) : undefined
    try {
      const body = {
        prompt: `Client ${id % 16}, letter ${turn}: `,
        max_tokens: 8 + Math.floor(draw(2) * 24),
        seed: turn,
      }
      const heard = await server.stream(body, away.signal)
      if (heard.whole) counts.whole++
      else counts.cut++
      firsts.push(heard.first)
    } catch (error) {
      if (away.signal.aborted) counts.left++
      else if (String(error).includes(' 429 ')) {
        counts.refused++
        await sleep(1000)
      } else {
        counts.failed++
        console.error(error)
      }
    } finally {
      clearTimeout(timer)
    }
  }
}

const samples: { at: number; resident: number; cached: number }[] = []
const watching = setInterval(async () => {
  const cached = ((await server.metrics()).get('luthier_prefix_cache_bytes') ?? 0) / 1e6
  samples.push({ at: performance.now(), resident: server.memory()[0], cached })
}, 1000)
await Promise.all(Array.from({ length: Number(clients) }, (_, id) => client(id)))
clearInterval(watching)
await sleep(2000)
const metrics = await server.metrics()
const half = samples.filter(({ at }) => at > end - Number(seconds) * 500)
const mean = (part: typeof half, of: 'resident' | 'cached' = 'resident') =>
  part.reduce((sum, sample) => sum + sample[of], 0) / part.length
const [third, last] = [half.slice(0, half.length >> 1), half.slice(half.length >> 1)]
console.log(`${clients} clients for ${seconds} s: ${JSON.stringify(counts)}`)
console.log(
  `ms to the first token: median ${median(firsts).toFixed(0)}, p95 ${quantile(firsts, 0.95).toFixed(0)}`,
)
console.log(
  `resident, means of the third and the last quarter: ${mean(third).toFixed(0)}, ${mean(last).toFixed(0)} MB (${((mean(last) / mean(third) - 1) * 100).toFixed(1)} %)`,
)
console.log(
  `of it the prefix cache, which fills up to its bound: ${mean(third, 'cached').toFixed(0)}, ${mean(last, 'cached').toFixed(0)} MB`,
)
console.log(`choices under way afterwards: ${metrics.get('luthier_inference_choices')}`)
console.log(
  `a request afterwards: ${(await server.stream({ prompt: 'One more', max_tokens: 4 })).whole ? 'answered' : 'cut'}`,
)
