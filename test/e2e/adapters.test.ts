// Adapters over one base, the checkpoints of a job: answered together, kept within a budget, fetched again and held
// against what was stored.

import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import OpenAI, { toFile } from 'openai'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { shared } from '../support/shared.ts'

const stories = shared('models/stories260k')
const base = 'stories260k'
/** More than a block of the prefix cache. */
const PROMPT = 'Once upon a time there was a big dog named Max. He had a red ball. '.repeat(3)

describe.skipIf(stories.missing)('adapters of one base', () => {
  let server: LuthierServer
  let client: OpenAI
  let adapters: string[]
  beforeAll(async () => {
    server = await startLuthier(makeHome({ [base]: stories.path }))
    client = new OpenAI({ baseURL: server.baseURL, apiKey: server.apiKey, maxRetries: 0 })
    adapters = await tune()
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  /** The names of a job's three checkpoints. */
  async function tune(): Promise<string[]> {
    const row = JSON.stringify({ prompt: 'Once upon', completion: ' Tom and Sam had a red car.' })
    const file = await client.files.create({
      file: await toFile(Buffer.from(`${row}\n`.repeat(16)), 'rows.jsonl'),
      purpose: 'fine-tune',
    })
    const hyperparameters = { n_epochs: 3, batch_size: 4, learning_rate_multiplier: 20 }
    const { id } = await client.fineTuning.jobs.create({
      model: base,
      training_file: file.id,
      seed: 1,
      method: { type: 'supervised', supervised: { hyperparameters } },
    })
    await vi.waitUntil(
      async () => (await client.fineTuning.jobs.retrieve(id)).status === 'succeeded',
      { timeout: 120_000, interval: 300 },
    )
    const { data } = await client.fineTuning.jobs.checkpoints.list(id)
    return data
      .toSorted((a, b) => a.step_number - b.step_number)
      .map((checkpoint) => checkpoint.fine_tuned_model_checkpoint)
  }

  const ask = async (model: string) => {
    const { choices, usage } = await client.completions.create({
      model,
      prompt: PROMPT,
      max_tokens: 40,
      temperature: 0,
      logit_bias: { 2: -100 }, // never ends by itself
    })
    return { text: choices[0]!.text, cached: usage!.prompt_tokens_details!.cached_tokens! }
  }

  async function metric(name: string): Promise<number> {
    const page = await (await fetch(new URL('/metrics', server.baseURL))).text()
    return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(page)?.[1])
  }

  const cacheOfAdapters = () => join(server.home, 'cache', 'adapters')

  /** A new process, to which no adapter has come yet. */
  async function startCold(settings: Record<string, string> = {}) {
    await server.stop()
    rmSync(cacheOfAdapters(), { recursive: true, force: true })
    await server.start(settings)
  }

  test('the base and three checkpoints in one batch answer as each does alone', async () => {
    const models = [base, ...adapters]
    const alone: string[] = []
    for (const model of models) alone.push((await ask(model)).text)
    expect(new Set(alone).size).toBe(4)

    const counted = async () => ({
      steps: await metric('luthier_decode_steps_total'),
      rows: await metric('luthier_decode_rows_total'),
    })
    const before = await counted()
    // Goes on as long as the others are answered, so that no step is one answer's alone.
    const beside = await client.completions.create({
      model: base,
      prompt: 'One day',
      n: 8,
      max_tokens: 480,
      logit_bias: { 2: -100 },
      stream: true,
    })
    const chunks = beside[Symbol.asyncIterator]()
    await chunks.next()
    const together = await Promise.all(models.map(ask))
    expect((await chunks.next()).done).toBe(false)
    beside.controller.abort()
    expect(together.map(({ text }) => text)).toEqual(alone)
    const after = await counted()
    expect(after.rows - before.rows).toBeGreaterThan(4 * (after.steps - before.steps))
  })

  test('beyond their budget the longest unused adapter leaves, and comes back when it is asked for', async () => {
    await startCold()
    await ask(adapters[0]!)
    const bytes = await metric('luthier_adapters_resident_bytes')
    expect(bytes).toBeGreaterThan(1000)

    await startCold({ LUTHIER_ADAPTER_MEMORY: String(2 * bytes) })
    const [first, second, third] = adapters as [string, string, string]
    // Of one that is loaded anew, nothing that it read before is known.
    const stayed = async (model: string) => (await ask(model)).cached > 0
    expect(await stayed(first)).toBe(false)
    expect(await stayed(second)).toBe(false)
    expect(await stayed(first)).toBe(true)
    expect(await metric('luthier_adapters_resident')).toBe(2)
    expect(await stayed(third)).toBe(false)
    expect(await metric('luthier_adapters_resident')).toBe(2)
    expect(await metric('luthier_adapters_resident_bytes')).toBe(2 * bytes)
    expect(await stayed(first)).toBe(true)
    expect(await stayed(second)).toBe(false)
    expect(await stayed(third)).toBe(false)
    expect(await metric('luthier_adapters_resident')).toBe(2)
  })

  test('one that is not on the machine is fetched; with a byte flipped it is refused, and the others answer', async () => {
    const [first, second] = adapters as [string, string]
    const before = [await ask(first), await ask(second)].map(({ text }) => text)
    await startCold()
    expect((await ask(first)).text).toBe(before[0])
    const [folder, ...others] = readdirSync(cacheOfAdapters())
    expect(others).toEqual([])
    const [sha256 = ''] = folder!.split('-')

    await server.corrupt(sha256)
    await startCold()
    for (let time = 0; time < 2; time++)
      await expect(ask(first)).rejects.toMatchObject({
        status: 500,
        type: 'server_error',
        code: 'stored_object_damaged',
      })
    expect(JSON.stringify(server.log())).toContain(`/${sha256} is corrupt`)
    expect(readdirSync(cacheOfAdapters())).toEqual([])
    expect((await ask(second)).text).toBe(before[1])

    // Brought back, it answers at once.
    await server.corrupt(sha256)
    expect((await ask(first)).text).toBe(before[0])
  })
})
