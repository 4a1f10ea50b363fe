// llama.cpp's side of exports.ts: FOLDER MODEL.gguf; lists of token ids as JSON in, the log-probability of each token
// given those before it out, from the second on. Keys and values are kept in float32, as ours are.

import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'

const [folder, modelPath] = process.argv.slice(2)
const entry = join(folder, 'node_modules/node-llama-cpp/dist/index.js')
const { getLlama } = await import(pathToFileURL(entry).href)
const lists = JSON.parse(await text(process.stdin))
const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error' })
const model = await llama.loadModel({ modelPath })
const context = await model.createContext({
  contextSize: 512,
  flashAttention: false,
  experimentalKvCacheKeyType: 'F32',
  experimentalKvCacheValueType: 'F32',
})
const sequence = context.getSequence()
const all = { temperature: 1, topK: 0, topP: 1, minP: 0 }
const told = []
for (const ids of lists) {
  await sequence.clearHistory()
  const logprobs = []
  const asked = ids.map((id, i) =>
    i === ids.length - 1
      ? id
      : [
          id,
          {
            generateNext: {
              logits: { filter: { tokens: [ids[i + 1]], includeTop: 1 } },
              totalLogitWeight: true,
              options: all,
            },
          },
        ],
  )
  await sequence.controlledEvaluate(asked, {
    onTokenResult(i, { next }) {
      const most = Math.max(...next.logits.values())
      logprobs[i] = next.logits.get(ids[i + 1]) - most - Math.log(next.totalLogitWeight)
    },
  })
  told.push(logprobs)
}
process.stdout.write(JSON.stringify(told), () => process.exit(0))
