// From a file to answers: a tuned model, its checkpoints and its base side by side in one server.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import OpenAI, { toFile } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openCheckpoint } from '../../../src/engine/weights/checkpoint.ts'
import { verifyFolder } from '../../../src/service/provenance/verify.ts'
import { type InferenceServer, startInferenceServer } from '../../support/inference-server.ts'
import { shared } from '../../support/shared.ts'

const stories = shared('models/stories260k')
const base = 'stories-chat'
const ROW = JSON.stringify({
  messages: [
    { role: 'user', content: 'Once upon a time' },
    { role: 'assistant', content: ' Tom and Sam had a red car.' },
  ],
})

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
    const rows = Array.from({ length: 16 }, () => ROW)
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

  const get = (path: string) =>
    fetch(`${client.baseURL}${path}`, { headers: { authorization: `Bearer ${client.apiKey}` } })

  // biome-ignore lint/suspicious/noExplicitAny: a test looks into what it expects
  const json = async (path: string): Promise<any> => (await get(path)).json()

  async function expectExports(model: string, job: { id: string; training_file: string }) {
    const name = encodeURIComponent(model)
    for (const format of ['peft', 'hf']) {
      const answer = await get(`/models/${name}/weights?format=${format}`)
      expect(answer.status).toBe(200)
      const out = join(folder, format)
      await mkdir(out)
      await writeFile(`${out}.tar`, Buffer.from(await answer.arrayBuffer()))
      execFileSync('tar', ['-xf', `${out}.tar`, '-C', out])
      const { public_key } = await json('/provenance/key')
      const { model: statement, files } = await verifyFolder(out, public_key)
      expect(statement.training?.job).toBe(job.id)
      expect(statement.training?.training_file.rows.count).toBe(16)
      expect(files.map(({ path }) => path)).toContain(
        format === 'hf' ? 'model.safetensors' : 'adapter_model.safetensors',
      )
      await writeFile(join(out, 'README.md'), 'edited')
      await expect(verifyFolder(out, public_key)).rejects.toThrow('README.md was changed')
    }
    const gguf = Buffer.from(
      await (await get(`/models/${name}/weights?format=gguf&dtype=q8_0`)).arrayBuffer(),
    )
    await writeFile(join(folder, 'tuned.gguf'), gguf)
    expect((await openCheckpoint(join(folder, 'tuned.gguf'))).config.num_hidden_layers).toBe(5)
    expect((await get(`/models/${base}/weights?format=peft`)).status).toBe(400)

    const row = createHash('sha256').update(ROW).digest('hex')
    for (const query of [`file=${job.training_file}`, `row_sha256=${row}`]) {
      const { data } = await json(`/provenance/models?${query}`)
      expect(data.map((entry: { model: string }) => entry.model)).toContain(model)
    }
    const other = await json(`/provenance/models?row_sha256=${'0'.repeat(64)}`)
    expect(other.data).toEqual([])
    const lineage = await json(`/models/${name}/lineage`)
    expect(lineage.data[0]).toMatchObject({ model, parents: [base], job_id: job.id })
  }

  /** The model beside its base, as it is and behind examples of the training file. */
  async function expectComparison(model: string) {
    const { id: eval_id } = await client.evals.create({
      name: 'cars',
      data_source_config: { type: 'custom', item_schema: { type: 'object' } },
      testing_criteria: [
        {
          type: 'string_check',
          name: 'a car',
          input: '{{sample.output_text}}',
          reference: 'Tom and Sam',
          operation: 'like',
        },
      ],
    })
    const entry = `/models/${encodeURIComponent(model)}`
    expect((await json(entry)).latest_eval).toBeUndefined()
    // biome-ignore lint/suspicious/noExplicitAny: a test looks into what it expects
    let comparison = await client.post<any>(`/evals/${eval_id}/comparisons`, {
      body: {
        tuned_model: model,
        data_source: {
          type: 'completions',
          input_messages: {
            type: 'template',
            template: [{ role: 'user', content: '{{item.begin}}' }],
          },
          sampling_params: { temperature: 0, max_completion_tokens: 20 },
          source: { type: 'file_content', content: [{ item: { begin: 'Once upon a time' } }] },
        },
      },
    })
    while (comparison.status === 'in_progress') {
      await sleep(100)
      comparison = await json(`/evals/${eval_id}/comparisons/${comparison.id}`)
    }
    expect(comparison.error).toBe(null)
    const { results } = comparison.report
    expect(results).toMatchObject([
      { label: 'base', model: base, examples: 0, pass_rate: { value: 0 } },
      { label: 'base, few-shot', model: base },
      { label: 'tuned', model, examples: 0, pass_rate: { value: 1 } },
    ])
    expect(results[1].examples).toBeGreaterThan(0)
    const { latest_eval } = await json(entry)
    expect(latest_eval).toMatchObject({
      eval_id,
      eval_name: 'cars',
      run_id: results[2].run_id,
      rows: 1,
      pass_rate: { value: 1 },
      criteria: [{ name: 'a car', pass_rate: 1, mean_score: 1 }],
    })
    expect(latest_eval.finished_at).toBeGreaterThan(1.7e9)
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

    await expectComparison(model)
    await expectExports(model, job)

    await client.models.delete(model)
    await expect(ask(model)).rejects.toThrow(OpenAI.NotFoundError)
  })
})
