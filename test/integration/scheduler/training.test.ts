import { cp, mkdtemp, rm, truncate } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startTraining } from '../../../src/service/scheduler/training.ts'
import { objectKey } from '../../../src/service/storage/object-store.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { testLog } from '../../support/log.ts'
import { shared } from '../../support/shared.ts'

const stories = shared('models/stories260k')

describe.skipIf(stories.missing)('fine-tuning jobs on a real model', () => {
  let service: TestApi
  let models = ''
  beforeAll(async () => {
    models = await mkdtemp(join(tmpdir(), 'luthier-models-'))
    await cp(stories.path, join(models, 'stories260k'), { recursive: true })
    await cp(stories.path, join(models, 'cut'), { recursive: true })
    await truncate(join(models, 'cut', 'model.safetensors'), 500_000)
    service = await openTestApi({ models })
  })
  afterAll(async () => {
    await service?.[Symbol.asyncDispose]()
    await rm(models, { recursive: true, force: true })
  })

  const train = () =>
    startTraining({
      stores: service.stores,
      models: service.models,
      cache: join(service.folder, 'weights'),
      precision: 'auto',
      log: testLog,
      adapterFile: service.adapterFile,
      serving: service.serving,
      pool: service.pool,
      compute: { device: 'cpu', threads: availableParallelism() },
      folders: [models, service.folder],
      lease_seconds: 2,
      poll_seconds: 0.5,
    })

  const rows = (count: number) =>
    Array.from({ length: count }, (_, i) =>
      JSON.stringify({ prompt: `Cat ${i} said`, completion: ` hello ${i * 7}.` }),
    ).join('\n')

  const nameOf = async (id: string): Promise<string> => {
    const sql = 'select model_name from fine_tuning_jobs where id = $1'
    return (await service.db.query(sql, [id])).rows[0].model_name
  }

  async function create(hyperparameters: object, options: object = {}) {
    const training_file = await service.upload(`${rows(12)}\n`)
    const { status, body } = await service.post('/v1/fine_tuning/jobs', {
      model: 'stories260k',
      training_file,
      seed: 11,
      method: { type: 'supervised', supervised: { hyperparameters } },
      ...options,
    })
    expect([status, body.error]).toEqual([200, null])
    return body.id as string
  }

  const job = async (id: string) => (await service.get(`/v1/fine_tuning/jobs/${id}`)).body
  const events = async (id: string) =>
    (await service.get(`/v1/fine_tuning/jobs/${id}/events?limit=1000`)).body.data

  async function until(id: string, done: (job: { status: string }) => Promise<boolean> | boolean) {
    for (let waited = 0; waited < 60_000; waited += 50) {
      if (await done(await job(id))) return
      await sleep(50)
    }
    throw new Error(`It did not come to that: ${JSON.stringify(await events(id), null, 1)}`)
  }
  const ended = (id: string) =>
    until(id, ({ status }) => ['succeeded', 'failed', 'cancelled'].includes(status))
  const steps = async (id: string): Promise<number[]> => {
    const sql = 'select step from fine_tuning_steps where job_id = $1 order by step'
    return (await service.db.query(sql, [id])).rows.map((row) => row.step)
  }

  const adapterOf = async (id: string) => adapterNamed((await job(id)).fine_tuned_model)

  async function adapterNamed(name: string): Promise<Buffer> {
    const { adapter } = await service.models.resolve(service.caller.project_id, name)
    const key = objectKey(service.caller.project_id, adapter?.sha256 ?? '')
    const chunks: Buffer[] = []
    for await (const chunk of await service.store.get(key)) chunks.push(chunk)
    return Buffer.concat(chunks)
  }

  test('a job goes from its files to a model that lowers the loss', async () => {
    await using _ = train()
    const validation_file = await service.upload(`${rows(3)}\n`)
    const id = await create({ n_epochs: 8, batch_size: 4 }, { validation_file, suffix: 'cats' })
    await ended(id)
    expect(await job(id)).toMatchObject({
      status: 'succeeded',
      error: null,
      hyperparameters: {
        n_epochs: 8,
        batch_size: 4,
        learning_rate_multiplier: expect.any(Number),
      },
    })
    const { trained_tokens, fine_tuned_model } = await job(id)
    expect(trained_tokens).toBeGreaterThan(8 * 12)
    expect(trained_tokens % 8).toBe(0)
    expect(fine_tuned_model).toMatch(/^ft:stories260k:luthier:cats:[0-9A-Za-z]{8}$/)
    expect(await steps(id)).toEqual(Array.from({ length: 24 }, (_, i) => i + 1))

    const told = (await events(id)).reverse()
    const messages = told.map((event: { message: string }) => event.message)
    expect(messages.slice(0, 4)).toEqual([
      `Created fine-tuning job: ${id}`,
      expect.stringMatching(/^Validating training file: file-\w+ and validation file: file-\w+$/),
      expect.stringMatching(/^Preflight: \d+ finding/),
      'Files validated, moving job to queued state',
    ])
    expect(messages.at(-1)).toBe('The job has successfully completed')
    const metrics = told.filter((event: { type: string }) => event.type === 'metrics')
    expect(metrics).toHaveLength(24)
    expect(metrics.at(-1).message).toMatch(
      /^Step 24\/24: training loss=\d+\.\d\d, validation loss=\d+\.\d\d, full validation loss=\d+\.\d\d$/,
    )
    expect(metrics.at(-1).data.train_loss).toBeLessThan(metrics[0].data.train_loss)
    const checkpoints = await service.get(`/v1/fine_tuning/jobs/${id}/checkpoints`)
    const kept = checkpoints.body.data.map((c: { step_number: number }) => c.step_number)
    expect(kept.slice(0, 3)).toEqual([24, 21, 18])
  })

  describe('with validation rows that contradict what is learned', () => {
    // Every step on the training rows makes these less likely, from some epoch on.
    const contrary = rows(6).replaceAll(' hello', ' goodbye')
    const overfit = { n_epochs: 10, batch_size: 4, learning_rate: 0.01 }
    const full = async (id: string) =>
      (await events(id))
        .reverse()
        .flatMap(({ data }: { data: { full_valid_loss?: number } }) => data.full_valid_loss ?? [])
    const checkpoints = async (id: string) =>
      (await service.get(`/v1/fine_tuning/jobs/${id}/checkpoints`)).body.data as {
        step_number: number
        fine_tuned_model_checkpoint: string
        metrics: { full_valid_loss: number }
      }[]

    test('it stops in time, and the best checkpoint alone bears the name of the model', async () => {
      await using _ = train()
      const validation_file = await service.upload(`${contrary}
`)
      const early_stopping = { patience: 4 }
      const id = await create({ ...overfit, early_stopping }, { validation_file })
      await ended(id)
      const { status, fine_tuned_model, result_files, trained_tokens } = await job(id)
      expect(status).toBe('succeeded')
      const kept = await checkpoints(id)
      const reached = Math.max(...(await steps(id)))
      const best = kept.find((c) => c.fine_tuned_model_checkpoint === fine_tuned_model)!
      expect(reached).toBeLessThan(30)
      expect(best.step_number).toBe(reached - 4 * 3)
      // The best beside the last three; every other has a name of its own.
      expect(kept.map((c) => c.step_number)).toEqual([
        reached,
        reached - 3,
        reached - 6,
        best.step_number,
      ])
      for (const { fine_tuned_model_checkpoint, step_number } of kept.slice(0, 3))
        expect(fine_tuned_model_checkpoint).toBe(`${fine_tuned_model}:ckpt-step-${step_number}`)
      const published = { step: best.step_number, full_valid_loss: best.metrics.full_valid_loss }
      expect(best.metrics.full_valid_loss).toBe(Math.min(...(await full(id))))
      expect(await events(id)).toContainEqual(
        expect.objectContaining({
          message: expect.stringMatching(/^Published the checkpoint of step/),
          data: { kind: 'published', ...published },
        }),
      )
      expect(await adapterNamed(fine_tuned_model)).not.toEqual(
        await adapterNamed(`${fine_tuned_model}:ckpt-step-${reached}`),
      )
      const [csv] = await Promise.all(
        result_files.map(async (file: string) => {
          const url = `/v1/files/${file}/content`
          const headers = { authorization: `Bearer ${service.key}` }
          return (await service.app.inject({ url, headers })).body
        }),
      )
      expect(csv.trim().split('\n')).toHaveLength(1 + reached)
      expect(
        (await events(id)).find((e: { type: string }) => e.type === 'metrics').data,
      ).toMatchObject({ step: reached, total_steps: reached })
      expect((trained_tokens * 3) % reached).toBe(0)
    })

    test('a gain that is smaller than was asked for is none', async () => {
      await using _ = train()
      const validation_file = await service.upload(`${rows(6)}\n`)
      const early_stopping = { patience: 1, min_delta: 100 }
      const hyperparameters = { n_epochs: 6, batch_size: 4, learning_rate: 1e-3, early_stopping }
      const id = await create(hyperparameters, { validation_file })
      await ended(id)
      expect(await steps(id)).toHaveLength(6)
      const losses = await full(id)
      expect(losses[1]).toBeLessThan(losses[0])
    })

    test('OpenAI publishes the last step all the same, and so does a job that asks for it', async () => {
      await using _ = train()
      const validation_file = await service.upload(`${contrary}
`)
      const luthier = { publish: { checkpoint: 'final' } }
      const id = await create({ ...overfit, n_epochs: 6 }, { validation_file, luthier })
      await ended(id)
      const { fine_tuned_model } = await job(id)
      const losses = await full(id)
      expect(losses.indexOf(Math.min(...losses))).toBeLessThan(5)
      expect((await checkpoints(id)).map((c) => c.fine_tuned_model_checkpoint)).toEqual([
        fine_tuned_model,
        `${fine_tuned_model}:ckpt-step-15`,
        `${fine_tuned_model}:ckpt-step-12`,
      ])
    })

    test.each<[string, object, object, string]>([
      [
        'early stopping',
        { early_stopping: {} },
        {},
        'method.supervised.hyperparameters.early_stopping',
      ],
      [
        'the best',
        {},
        { luthier: { publish: { checkpoint: 'best' } } },
        'luthier.publish.checkpoint',
      ],
    ])('%s without rows to measure by is a mistake', async (_, hyperparameters, more, param) => {
      const { status, body } = await service.post('/v1/fine_tuning/jobs', {
        model: 'stories260k',
        training_file: await service.upload(`${rows(12)}
`),
        method: { type: 'supervised', supervised: { hyperparameters } },
        ...more,
      })
      expect([status, body.error.param]).toEqual([400, param])
      expect(body.error.message).toContain('validation_split')
    })
  })

  describe('with a limit to what may be forgotten', () => {
    const phrase = Array.from({ length: 40 }, (_, i) =>
      JSON.stringify({ prompt: `Ticket ${i}:`, completion: ' Please hold the line.' }),
    ).join('\n')
    const guarded = async (hyperparameters: object, luthier: object) => {
      const training_file = await service.upload(`${phrase}\n`)
      const id = await create({ batch_size: 8, ...hyperparameters }, { training_file, luthier })
      await ended(id)
      const { data } = (await service.get(`/v1/fine_tuning/jobs/${id}/checkpoints`)).body
      return { job: await job(id), id, checkpoints: data }
    }
    const publish = { max_regression: 0.5 }

    test('a model that was trained too long on one phrase is refused, and its checkpoints stay', async () => {
      await using _ = train()
      const over = await guarded({ n_epochs: 10, learning_rate: 0.02 }, { publish })
      const [last] = over.checkpoints
      expect(last.metrics.probe_loss - last.metrics.probe_base_loss).toBeGreaterThan(0.5)
      expect(last.metrics.probe_divergence).toBeGreaterThan(0.5)
      const { error, status, fine_tuned_model } = over.job
      expect([status, fine_tuned_model]).toEqual(['failed', null])
      expect(error).toMatchObject({
        code: 'model_regressed',
        param: 'luthier.publish.max_regression',
      })
      expect(error.message).toContain(last.metrics.probe_loss.toFixed(3))
      expect(over.checkpoints).toHaveLength(3)
      for (const { fine_tuned_model_checkpoint: name } of over.checkpoints) {
        expect(name).toMatch(/:ckpt-step-\d+$/)
        expect((await service.get(`/v1/models/${name}`)).status).toBe(200)
      }
      expect((await service.get(`/v1/models/${await nameOf(over.id)}`)).status).toBe(404)
    })

    test('a model that was not is published under its name', async () => {
      await using _ = train()
      const hyperparameters = { n_epochs: 1, learning_rate: 2e-4 }
      const { job, checkpoints } = await guarded(hyperparameters, { publish })
      expect(job.status).toBe('succeeded')
      const [{ metrics, fine_tuned_model_checkpoint }] = checkpoints
      expect(fine_tuned_model_checkpoint).toBe(job.fine_tuned_model)
      expect(metrics.probe_loss - metrics.probe_base_loss).toBeLessThan(0.5)
      // What was measured before is what the base alone would be.
      expect(metrics.probe_divergence).toBeGreaterThan(0)
      expect(metrics.probe_divergence).toBeLessThan(0.2)
    })
  })

  test('a job in int8 shows its precision, learns, and ends as another adapter than in fp32', async () => {
    await using _ = train()
    const [int8, fp32] = [
      await create({ n_epochs: 4, batch_size: 4, precision: 'int8' }),
      await create({ n_epochs: 4, batch_size: 4, precision: 'fp32' }),
    ]
    await ended(int8)
    await ended(fp32)
    expect(await job(int8)).toMatchObject({
      status: 'succeeded',
      method: { supervised: { hyperparameters: { precision: 'int8' } } },
    })
    expect(await adapterOf(int8)).not.toEqual(await adapterOf(fp32))
    const losses = (await events(int8))
      .filter((event: { type: string }) => event.type === 'metrics')
      .map((event: { data: { train_loss: number } }) => event.data.train_loss)
    expect(losses[0]).toBeLessThan(losses.at(-1))
  })

  test('bad rows fail the job with all of them in its error event', async () => {
    await using _ = train()
    const training_file = await service.upload(`${rows(12)}\n{"prompt":"a"}\nno json\n`)
    const id = await create({}, { training_file })
    await ended(id)
    expect(await job(id)).toMatchObject({
      status: 'failed',
      fine_tuned_model: null,
      error: { code: 'invalid_training_file', param: 'training_file' },
    })
    const { error } = await job(id)
    expect(error.message).toMatch(
      /^The job failed due to an invalid training file\. Invalid file format\. Example 13 /,
    )
    const [failure] = await events(id)
    expect(failure).toMatchObject({ level: 'error', message: error.message })
    expect(failure.data.errors.map((e: { line: number }) => e.line)).toEqual([13, 14])
  })

  test.each([
    ['seven examples', `${rows(7)}\n`, 'invalid_n_examples', 'Training file has 7 example(s)'],
    ['no example', '', 'invalid_n_examples', 'Training file has 0 example(s)'],
    ['another format', '{"x":1}\n'.repeat(12), 'invalid_training_file', 'unexpected file format'],
    ['bytes that are no text', '\u0000\n'.repeat(12), 'invalid_training_file', 'Invalid file'],
  ])('a file with %s fails the job', async (_name, content, code, message) => {
    await using _ = train()
    const id = await create({}, { training_file: await service.upload(content) })
    await ended(id)
    const { status, error } = await job(id)
    expect([status, error.code, error.param]).toEqual(['failed', code, 'training_file'])
    expect(error.message).toContain(message)
  })

  test('a cancel stops training within a step', async () => {
    await using _ = train()
    const id = await create({ n_epochs: 50, batch_size: 1 })
    await until(id, async () => (await steps(id)).length > 5)
    const { body } = await service.post(`/v1/fine_tuning/jobs/${id}/cancel`)
    expect(body.status).toBe('cancelled')
    const reached = await steps(id)
    await sleep(1000)
    expect(await steps(id)).toEqual(reached)
    expect((await events(id))[0].message).toBe('Job cancelled')

    const next = await create({ n_epochs: 1, batch_size: 4 })
    await ended(next)
    expect((await job(next)).status).toBe('succeeded')
  })

  test('inference answers while a job trains, and the job goes on meanwhile', async () => {
    await using _ = train()
    const id = await create({ n_epochs: 50, batch_size: 1 })
    await until(id, async () => (await steps(id)).length > 2)
    const ask = () =>
      service.post('/v1/completions', {
        model: 'stories260k',
        prompt: 'Once upon a time',
        max_tokens: 40,
        temperature: 0,
      })
    const before = (await steps(id)).length
    for (let i = 0; i < 5; i++) {
      const { status, body } = await ask()
      expect([status, body.usage?.completion_tokens]).toEqual([200, 40])
    }
    await until(id, async () => (await steps(id)).length > before)
    expect((await job(id)).status).toBe('running')
    await service.post(`/v1/fine_tuning/jobs/${id}/cancel`)
  })

  test('a model whose file is cut fails the job and names it, but no folder', async () => {
    await using _ = train()
    const id = await create({}, { model: 'cut' })
    await ended(id)
    const { status, error } = await job(id)
    expect([status, error.code]).toEqual(['failed', 'server_error'])
    expect(error.message).toMatch(/^The job failed during training\. .*model\.safetensors/)
    expect(error.message).not.toContain(models)
  })

  test('connections that the database drops cost nothing', async () => {
    await using _ = train()
    const id = await create({ n_epochs: 10, batch_size: 2 })
    for (const enough of [1, 10, 20]) {
      await until(id, async () => (await steps(id)).length >= enough)
      await service.db.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid()`,
      )
      await sleep(300)
    }
    await ended(id)
    expect(await job(id)).toMatchObject({ status: 'succeeded', error: null })
    expect(await steps(id)).toEqual(Array.from({ length: 60 }, (_, i) => i + 1))
  })

  test('a job that is paused and resumed ends with the bytes of an undisturbed one', async () => {
    await using _ = train()
    const hyperparameters = { n_epochs: 30, batch_size: 2 }
    const undisturbed = await create(hyperparameters)
    await ended(undisturbed)
    const { created_at, finished_at } = await job(undisturbed)
    const took = finished_at - created_at

    const id = await create(hyperparameters)
    const url = `/v1/fine_tuning/jobs/${id}`
    const paused: string[] = []
    for (const enough of [5, 60]) {
      await until(id, async () => (await steps(id)).length >= enough)
      // It is told anew at each step: one that a busy machine has overtaken is soon followed by another.
      await expect
        .poll(async () => (await job(id)).estimated_finish - Date.now() / 1000, { timeout: 30_000 })
        .toSatisfy((left: number) => left > -2 && left < Math.max(60, 5 * took))
      const { status, body } = await service.post(`${url}/pause`)
      expect([status, body.status, body.estimated_finish]).toEqual([200, 'paused', null])

      const step = (await steps(id)).at(-1)!
      const name = `${await nameOf(id)}:ckpt-step-${step}`
      const checkpoints = (await service.get(`${url}/checkpoints`)).body.data
      expect(checkpoints[0]).toMatchObject({
        step_number: step,
        fine_tuned_model_checkpoint: name,
        metrics: { step, train_loss: expect.any(Number) },
      })
      expect((await adapterNamed(name)).length).toBeGreaterThan(1000)
      paused.push(name)
      expect((await service.post(`${url}/pause`)).body.error).toMatchObject({
        code: 'invalid_job_state',
        message: expect.stringContaining("its status is 'paused'"),
      })
      await sleep(700)
      expect((await steps(id)).at(-1)).toBe(step)
      const resumed = await service.post(`${url}/resume`)
      expect([resumed.status, resumed.body.status]).toEqual([200, 'queued'])
    }
    await ended(id)
    expect((await job(id)).status).toBe('succeeded')
    expect(await steps(id)).toEqual(await steps(undisturbed))
    expect((await adapterOf(id)).equals(await adapterOf(undisturbed))).toBe(true)
    // The checkpoints of the pauses stay beside the last three epochs' ends.
    const kept = (await service.get(`${url}/checkpoints`)).body.data
    expect(kept.map((c: { step_number: number }) => c.step_number).slice(0, 3)).toEqual([
      180, 174, 168,
    ])
    for (const name of paused) expect((await adapterNamed(name)).length).toBeGreaterThan(1000)
    const messages = (await events(id)).map((event: { message: string }) => event.message)
    expect(messages.filter((message: string) => /^Job (paused|resumed)$/.test(message))).toEqual([
      'Job resumed',
      'Job paused',
      'Job resumed',
      'Job paused',
    ])
    for (const verb of ['pause', 'resume'])
      expect((await service.post(`${url}/${verb}`)).body.error).toMatchObject({
        message: `Job has already completed: ${id}`,
        code: 'invalid_job_state',
      })
  })

  test('a pause that its worker did not live to see is made by the next one', async () => {
    const id = await create({ n_epochs: 30, batch_size: 2 })
    for (const verb of ['pause', 'resume'])
      expect((await service.post(`/v1/fine_tuning/jobs/${id}/${verb}`)).body.error).toMatchObject({
        message: expect.stringContaining("its status is 'validating_files'"),
        code: 'invalid_job_state',
      })
    {
      await using _ = train()
      await until(id, async () => (await steps(id)).length >= 5)
    }
    // As a worker leaves it that died between the wish and the pause.
    await service.db.query(`update work set pause_requested = true where id = $1`, [id])
    await using _ = train()
    await until(id, ({ status }) => status === 'paused')
    const { body } = await service.post(`/v1/fine_tuning/jobs/${id}/cancel`)
    expect(body.status).toBe('cancelled')
  })

  test('a tuned model and a checkpoint are bases of further jobs', async () => {
    await using _ = train()
    const first = await create({ n_epochs: 8, batch_size: 4, lora: { rank: 4 } })
    await ended(first)
    const parent = (await job(first)).fine_tuned_model
    const checkpoint = (await service.get(`/v1/fine_tuning/jobs/${first}/checkpoints`)).body.data[1]
      .fine_tuned_model_checkpoint
    expect(checkpoint).toMatch(/:ckpt-step-21$/)
    const lossAt = async (id: string, step: number) =>
      (await events(id)).find(
        (event: { type: string; data: { step: number } }) =>
          event.type === 'metrics' && event.data.step === step,
      ).data.train_loss
    for (const model of [parent, checkpoint]) {
      const id = await create({ n_epochs: 4, batch_size: 4 }, { model, suffix: 'on' })
      await ended(id)
      const { status, fine_tuned_model, hyperparameters } = await job(id)
      expect(status).toBe('succeeded')
      // The child is named after the base, and says what it was tuned from.
      expect(fine_tuned_model).toMatch(/^ft:stories260k:luthier:on:\w{8}$/)
      expect(hyperparameters.lora).toBeUndefined()
      const entry = (await service.get(`/v1/models/${encodeURIComponent(fine_tuned_model)}`)).body
      expect(entry).toMatchObject({ parent: model, root: 'stories260k' })
      expect(await lossAt(id, 1)).toBeLessThan((await lossAt(first, 1)) * 0.9)
    }
    const training_file = await service.upload(`${rows(12)}\n`)
    for (const [name, value] of Object.entries({ rank: 8, use_dora: true, use_rslora: true })) {
      const wrong = await service.post('/v1/fine_tuning/jobs', {
        model: parent,
        training_file,
        method: { type: 'dpo', dpo: { hyperparameters: { lora: { [name]: value } } } },
      })
      expect([wrong.status, wrong.body.error]).toEqual([
        400,
        expect.objectContaining({
          param: `method.dpo.hyperparameters.lora.${name}`,
          code: 'invalid_value',
        }),
      ])
    }
    // The adapter that a job starts from is held until the job ends, even when its name ended before.
    const held = await create({ n_epochs: 2, batch_size: 4 }, { model: checkpoint })
    expect((await service.delete(`/v1/models/${encodeURIComponent(parent)}`)).status).toBe(200)
    await ended(held)
    expect((await job(held)).status).toBe('succeeded')
    const released = async () => {
      const sql = 'select initial_pin, superseded from fine_tuning_jobs where id = $1'
      const [left] = (await service.db.query(sql, [held])).rows
      return left.initial_pin === null && left.superseded.length === 0
    }
    await until(held, released)
  })

  test('a job that is stopped again and again ends with the bytes of an undisturbed one', async () => {
    const hyperparameters = { n_epochs: 20, batch_size: 2 }
    const undisturbed = await create(hyperparameters)
    {
      await using _ = train()
      await ended(undisturbed)
    }
    const id = await create(hyperparameters)
    for (const enough of [10, 40, 41, 90]) {
      await using _ = train()
      await until(id, async () => (await steps(id)).length >= enough)
    }
    expect(['queued', 'running']).toContain((await job(id)).status)
    {
      await using _ = train()
      await ended(id)
    }
    expect((await job(id)).status).toBe('succeeded')
    expect(await steps(id)).toEqual(await steps(undisturbed))
    expect((await adapterOf(id)).equals(await adapterOf(undisturbed))).toBe(true)
    expect((await job(id)).trained_tokens).toBe((await job(undisturbed)).trained_tokens)
    const csv = async (job_id: string) => {
      const [file] = (await job(job_id)).result_files
      const { rows } = await service.db.query('select sha256 from files where id = $1', [file])
      return rows[0].sha256
    }
    expect(await csv(id)).toBe(await csv(undisturbed))
    const messages = (await events(id)).map((event: { message: string }) => event.message)
    expect(new Set(messages).size).toBe(messages.length)
  })
})
