// From a file to answers: a tuned model, its checkpoints and its base side by side in one server.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import OpenAI, { toFile } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type InferenceServer, startInferenceServer } from '../../support/inference-server.ts'
import { shared } from '../../support/shared.ts'

const stories = shared('models/stories260k')
const base = 'stories-chat'

describe.skipIf(stories.missing)('a tuned model', () => {
  let folder: string
  let server: InferenceServer
  let client: OpenAI

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'luthier-tuned-'))
    server = await startInferenceServer(stories.path, folder)
    client = server.client
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  const ask = async (model: string) => {
    const answer = await client.chat.completions.create({
      model,
      messages: [{ role: 'user', content: 'Once upon a time' }],
      max_tokens: 20,
      temperature: 0,
    })
    expect(answer.model).toBe(model)
    return { text: answer.choices[0]?.message.content, fingerprint: answer.system_fingerprint }
  }

  async function tune() {
    const rows = Array.from({ length: 16 }, () =>
      JSON.stringify({
        messages: [
          { role: 'user', content: 'Once upon a time' },
          { role: 'assistant', content: ' Tom and Sam had a red car.' },
        ],
      }),
    )
    const file = await client.files.create({
      file: await toFile(Buffer.from(rows.join('\n')), 'rows.jsonl'),
      purpose: 'fine-tune',
    })
    const job = await client.fineTuning.jobs.create({
      model: base,
      training_file: file.id,
      suffix: 'cars',
      seed: 1,
      method: {
        type: 'supervised',
        supervised: { hyperparameters: { n_epochs: 10, batch_size: 4 } },
      },
    })
    for (let last = job; ; last = await client.fineTuning.jobs.retrieve(job.id)) {
      if (last.status === 'succeeded') return last
      if (last.error?.message) throw new Error(last.error.message)
      await sleep(100)
    }
  }

  test('answers as it was taught once its job has succeeded, and its base as before', async () => {
    const untuned = await ask(base)
    const job = await tune()
    const model = job.fine_tuned_model ?? ''
    expect(model).toMatch(/^ft:stories-chat:luthier:cars:.{8}$/)

    const [tuned, again] = await Promise.all([ask(model), ask(base)])
    expect(again).toEqual(untuned)
    expect(tuned.text).not.toBe(untuned.text)
    expect(tuned.text).toContain('Tom')
    expect(tuned.fingerprint).not.toBe(untuned.fingerprint)

    const { data } = await client.fineTuning.jobs.checkpoints.list(job.id)
    const earlier = data.map((c) => c.fine_tuned_model_checkpoint).filter((name) => name !== model)
    expect(earlier).toHaveLength(2)
    for (const name of earlier) expect((await ask(name)).fingerprint).not.toBe(tuned.fingerprint)

    await client.models.delete(model)
    await expect(ask(model)).rejects.toThrow(OpenAI.NotFoundError)
  })
})
