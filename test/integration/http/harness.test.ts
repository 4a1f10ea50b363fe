// What an evaluation harness asks for, over HTTP: log-likelihoods of continuations by `echo` and `logprobs`, and the
// choices that follow from them, against transformers. Fixture by test/golden/harness.py.

import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import OpenAI from 'openai'
import { beforeAll, describe, expect, test } from 'vitest'
import { readConfig } from '../../../src/config.ts'
import { startServer } from '../../../src/server.ts'
import { readFixture } from '../../support/fixtures.ts'
import { testLog } from '../../support/log.ts'
import { specFetch } from '../../support/openai-spec.ts'
import { freshDatabase } from '../../support/postgres.ts'
import { testModel } from '../../support/shared.ts'

const model = testModel('SmolLM2-135M-Instruct.Q4_1.gguf')
const name = 'SmolLM2-135M-Instruct.Q4_1'

interface Item {
  context: string
  choices: string[]
  answer: number
  tokens: number[][]
  context_tokens: number
  loglikelihoods: number[]
  greedy: boolean[]
}

interface Judged {
  loglikelihood: number
  greedy: boolean
}

type Choice = OpenAI.CompletionChoice

/** As lm-evaluation-harness reads an answer: without the one token that was made. */
function judge({ logprobs }: Choice, from: number): Judged {
  const { tokens = [], token_logprobs = [], top_logprobs = [] } = logprobs ?? {}
  const own = token_logprobs.slice(from, -1)
  const best = top_logprobs.slice(from, -1).map((row) => Math.max(...Object.values(row)))
  expect(own.length).toBeGreaterThan(0)
  expect(tokens).toHaveLength(token_logprobs.length)
  return {
    loglikelihood: own.reduce((sum, logprob) => sum + logprob, 0),
    greedy: own.every((logprob, i) => logprob === best[i]),
  }
}

const highest = (values: readonly number[]) => values.indexOf(Math.max(...values))

describe.skipIf(model.missing)('an evaluation harness', () => {
  let items: Item[]
  beforeAll(async () => {
    items = (await readFixture<{ items: Item[] }>('harness.json')).items
  })

  /** A server that computes so; converted weights lie beside the model, so that runs share them. */
  async function withServer(precision: string, ask: (client: OpenAI) => Promise<void>) {
    const home = await mkdtemp(join(tmpdir(), 'luthier-harness-'))
    const converted = join(dirname(model.path), 'converted')
    await mkdir(converted, { recursive: true })
    await mkdir(join(home, 'models'))
    await mkdir(join(home, 'cache'))
    await symlink(model.path, join(home, 'models', basename(model.path)))
    await symlink(converted, join(home, 'cache', 'weights'))
    await using database = await freshDatabase()
    const config = readConfig({
      PORT: '0',
      LUTHIER_HOME: home,
      DATABASE_URL: database.url,
      LUTHIER_PRECISION: precision,
    })
    const server = await startServer(config, testLog)
    try {
      const { apiKey } = server
      await ask(new OpenAI({ baseURL: `${server.url}/v1`, apiKey, fetch: specFetch() }))
    } finally {
      await server.close()
      await rm(home, { recursive: true, force: true })
    }
  }

  const wanted = { model: name, max_tokens: 1, temperature: 0, echo: true, logprobs: 1 }

  // Log-likelihoods of whole continuations, in nats; and how many of the fifty choices may differ.
  test.each([
    // Measured 3e-5.
    { precision: 'fp32', within: 1e-2, differing: 0 },
    { precision: 'int8', within: 3, differing: 5 },
    { precision: 'int4', within: 3, differing: 5 },
  ])(
    '$precision makes the choices of transformers',
    async ({ precision, within, differing }) => {
      expect(items).toHaveLength(50)
      let [worst, sum, same, right, greedy] = [0, 0, 0, 0, 0]
      await withServer(precision, async (client) => {
        for (const item of items) {
          const prompt = item.choices.map((choice) => item.context + choice)
          const { choices } = await client.completions.create({ ...wanted, prompt })
          const judged = choices.map((choice) => {
            const from = choice.logprobs?.text_offset?.findIndex((at) => at >= item.context.length)
            return judge(choice, from ?? -1)
          })
          for (const [i, { loglikelihood, greedy: is }] of judged.entries()) {
            const off = Math.abs(loglikelihood - item.loglikelihoods[i]!)
            worst = Math.max(worst, off)
            sum += off
            if (is === item.greedy[i]) greedy++
          }
          const chosen = highest(judged.map(({ loglikelihood }) => loglikelihood))
          if (chosen === highest(item.loglikelihoods)) same++
          if (chosen === item.answer) right++
        }
        // As token ids, which is how the harness sends what it has tokenized itself.
        const { tokens, context_tokens, loglikelihoods } = items[7]!
        const { choices } = await client.completions.create({ ...wanted, prompt: tokens })
        for (const [i, choice] of choices.entries())
          expect(
            Math.abs(judge(choice, context_tokens).loglikelihood - loglikelihoods[i]!),
          ).toBeLessThan(within)
      })
      console.log(
        `${precision}: ${same} of 50 choices as transformers, ${right} right; log-likelihoods off by ${worst.toExponential(1)} at most, ${(sum / 200).toExponential(1)} on average; ${greedy} of 200 greedy alike`,
      )
      expect(worst).toBeLessThan(within)
      // What is not float32 is told from it: a server that computes in another precision than asked fails here.
      if (precision !== 'fp32') expect(worst).toBeGreaterThan(1e-2)
      expect(same).toBeGreaterThanOrEqual(50 - differing)
      if (precision === 'fp32') expect(greedy).toBe(200)
    },
    480_000,
  )
})
