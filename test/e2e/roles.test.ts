// API and workers as processes of their own: inference is passed on, and a worker that dies is replaced.

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { OpenAI } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Cluster, startCluster } from '../support/cluster.ts'
import { shared } from '../support/shared.ts'
import { suiteFolder } from '../support/temporary.ts'
import { writeTinyEncoder } from '../support/tiny-encoder.ts'

const stories = shared('models/stories260k')
const KILLS = 5

describe.skipIf(stories.missing)('an API process and two workers', () => {
  let cluster: Cluster
  let client: OpenAI
  beforeAll(async () => {
    const encoder = await writeTinyEncoder(join(folder, 'encoder'), { head: false })
    const models = { stories260k: stories.path, encoder }
    cluster = await startCluster(models, { workers: 2 })
    const { baseURL, apiKey } = cluster.api
    client = new OpenAI({ baseURL, apiKey, maxRetries: 0 })
  })
  afterAll(() => cluster?.[Symbol.asyncDispose]())
  const folder = suiteFolder()

  // Long enough to outlast five restarts on a quick machine.
  const rows = Array.from({ length: 100 }, (_, i) =>
    JSON.stringify({ prompt: `Cat ${i} said`, completion: ` hello ${i * 7}.` }),
  ).join('\n')

  async function startJob(n_epochs: number): Promise<string> {
    const file = await client.files.create({
      file: await OpenAI.toFile(new TextEncoder().encode(`${rows}\n`), 'rows.jsonl'),
      purpose: 'fine-tune',
    })
    const job = await client.fineTuning.jobs.create({
      model: 'stories260k',
      training_file: file.id,
      seed: 3,
      method: {
        type: 'supervised',
        supervised: { hyperparameters: { n_epochs, batch_size: 2 } },
      },
    })
    return job.id
  }

  async function ended(id: string) {
    for (let waited = 0; waited < 180_000; waited += 200) {
      const job = await client.fineTuning.jobs.retrieve(id)
      if (['succeeded', 'failed', 'cancelled'].includes(job.status)) return job
      await sleep(200)
    }
    throw new Error('The job has not ended within three minutes.')
  }

  const scalar = async (sql: string, values: unknown[] = []) =>
    Object.values((await cluster.db.query(sql, values)).rows[0] ?? {})[0]
  const adapterOf = (job_id: string) =>
    scalar('select adapter_sha256 from models where job_id = $1', [job_id])

  const prompt = { model: 'stories260k', prompt: 'Once upon a time', temperature: 0 }

  test('answers come from a worker, whole and as a stream, with its errors', async () => {
    const whole = await client.completions.create({ ...prompt, max_tokens: 24, logprobs: 1 })
    expect(whole.choices[0]?.text).toMatch(/, there was a little girl/)
    expect(whole.choices[0]?.logprobs?.token_logprobs).toHaveLength(24)

    let text = ''
    let chunks = 0
    for await (const chunk of await client.completions.create({
      ...prompt,
      max_tokens: 24,
      stream: true,
    })) {
      text += chunk.choices[0]?.text ?? ''
      chunks++
    }
    expect(text).toBe(whole.choices[0]?.text)
    expect(chunks).toBeGreaterThan(10)

    const tooLong = client.completions.create({ ...prompt, max_tokens: 100_000 })
    await expect(tooLong).rejects.toMatchObject({ status: 400, param: 'max_tokens' })
    await expect(client.completions.create({ ...prompt, model: 'none' })).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
    })
    const several = await client.completions.create({
      ...prompt,
      prompt: ['Once upon a time', 'Tim', 'Lily'],
      max_tokens: 4,
    })
    expect(several.choices).toHaveLength(3)
  })

  test('vectors come from a worker too, with its errors', async () => {
    const { data, usage } = await client.embeddings.create({ model: 'encoder', input: ['ab', 'c'] })
    expect(data.map(({ embedding }) => embedding.length)).toEqual([16, 16])
    expect(usage.prompt_tokens).toBe(4 + 3)
    const long = client.embeddings.create({ model: 'encoder', input: 'ab'.repeat(50) })
    await expect(long).rejects.toMatchObject({ status: 400, code: 'context_length_exceeded' })
  })

  test('a client that goes away ends the work at the worker', async () => {
    const taken = async () => Number(await scalar('select sum(taken) from workers'))
    const stream = await client.completions.create({
      ...prompt,
      max_tokens: 480,
      n: 16,
      temperature: 1,
      stream: true,
    })
    for await (const _ of stream) if ((await taken()) >= 16) break
    for (let waited = 0; (await taken()) > 0; waited += 100) {
      expect(waited).toBeLessThan(10_000)
      await sleep(100)
    }
  })

  test('nobody but an API process is answered by a worker', async () => {
    const { origin } = new URL(cluster.workers[0]!.baseURL)
    for (const authorization of ['', `Bearer ${cluster.api.apiKey}`]) {
      const reply = await fetch(`${origin}/internal/generate`, {
        method: 'POST',
        headers: { authorization, 'content-type': 'application/json' },
        body: '{}',
      })
      expect(reply.status).toBe(401)
    }
    expect((await fetch(`${origin}/v1/models`)).status).toBe(404)
  })

  test(`a job whose worker is killed ${KILLS} times ends with the bytes of an undisturbed one`, async () => {
    const undisturbed = await startJob(50)
    expect((await ended(undisturbed)).status).toBe('succeeded')

    const id = await startJob(50)
    const holder = async () => {
      const owner = await scalar('select lease_owner from work where id = $1', [id])
      return cluster.workers.find(({ pid }) => String(owner).includes(`/${pid}/`))
    }
    const victims: (number | undefined)[] = []
    let back = Promise.resolve()
    for (let kill = 0; kill < KILLS; kill++) {
      // Whoever comes back may take the job at once: it is ready before it may be killed again.
      await back
      await sleep(Math.random() * 1500)
      let victim = await holder()
      for (; !victim; victim = await holder()) {
        const { status } = await client.fineTuning.jobs.retrieve(id)
        expect(['validating_files', 'queued', 'running']).toContain(status)
        await sleep(20)
      }
      victims.push(victim.pid)
      await victim.kill()
      // The other one takes the job over; this one comes back meanwhile.
      back = victim.start()
    }
    await back
    expect(new Set(victims).size).toBe(KILLS)
    const job = await ended(id)
    expect([job.status, job.error]).toEqual(['succeeded', null])
    expect(await adapterOf(id)).toBe(await adapterOf(undisturbed))
    expect(job.trained_tokens).toBe(
      (await client.fineTuning.jobs.retrieve(undisturbed)).trained_tokens,
    )
    const csv = async (file: string | undefined) => (await client.files.content(file ?? '')).text()
    const [expected] = (await client.fineTuning.jobs.retrieve(undisturbed)).result_files
    expect(await csv(job.result_files[0])).toBe(await csv(expected))

    // The worker that made it has it loaded; of the two, that one is asked. Dead ones stay in the table for a while.
    const resident = `select count(*) from workers
      where $1 = any (resident) and heartbeat_at > clock_timestamp() - interval '5 seconds'`
    const adapter = await adapterOf(id)
    while ((await scalar(resident, [adapter])) !== 1) await sleep(100)
    await sleep(1000)
    const model = job.fine_tuned_model ?? ''
    for (let i = 0; i < 4; i++) {
      const answer = await client.completions.create({ ...prompt, model, max_tokens: 8 })
      expect(answer.choices[0]?.text).toMatch(/\S/)
    }
    await sleep(2000)
    expect(await scalar(resident, [adapter])).toBe(1)
  })

  test('without a worker inference is a 503 that says when to come back; files and jobs go on', async () => {
    for (const worker of cluster.workers) await worker.kill()
    const asked = Date.now()
    const refused = await client.completions.create(prompt).then(
      () => undefined,
      (error) => error,
    )
    expect(refused).toBeInstanceOf(OpenAI.InternalServerError)
    expect(refused.status).toBe(503)
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(Date.now() - asked).toBeLessThan(10_000)

    const id = await startJob(1)
    expect((await client.fineTuning.jobs.retrieve(id)).status).toBe('validating_files')
    await cluster.workers[1]!.start()
    expect((await ended(id)).status).toBe('succeeded')
    expect((await client.completions.create({ ...prompt, max_tokens: 4 })).choices).toHaveLength(1)
  })
})
