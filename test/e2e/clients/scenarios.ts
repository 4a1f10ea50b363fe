// What an application does with the official client, scenario by scenario (openai-surface, conformance list).
// Only the client and node:assert are used, so that every version of the client on every Node runs the same text.

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type OpenAI from 'openai'

export interface Context {
  OpenAI: typeof OpenAI
  baseURL: string
  apiKey: string
  /** A base model with a chat template. */
  model: string
  /** Names this client in metadata, so that each works with jobs of its own. */
  name: string
}

export interface Scenario {
  name: string
  run(context: Context): Promise<void>
}

type Row = Record<string, unknown>

const ANSWER = '你好 😀 Grüße'

const connect = (context: Context, options: { maxRetries?: number; apiKey?: string } = {}) =>
  new context.OpenAI({ baseURL: context.baseURL, apiKey: context.apiKey, ...options })

const jsonl = (context: Context, rows: Row[], name = 'rows.jsonl') =>
  context.OpenAI.toFile(
    new TextEncoder().encode(rows.map((row) => `${JSON.stringify(row)}\n`).join('')),
    name,
  )

const chatRows = (count: number, answer = (i: number) => `A cat has ${i} toys.`): Row[] =>
  Array.from({ length: count }, (_, i) => ({
    messages: [
      { role: 'user', content: `Tell me about cat ${i}.` },
      { role: 'assistant', content: answer(i) },
    ],
  }))

async function upload(context: Context, rows: Row[]): Promise<string> {
  const file = await connect(context).files.create({
    file: await jsonl(context, rows),
    purpose: 'fine-tune',
  })
  return file.id
}

async function ended(context: Context, id: string) {
  const client = connect(context)
  for (let i = 0; i < 1200; i++) {
    const job = await client.fineTuning.jobs.retrieve(id)
    if (['succeeded', 'failed', 'cancelled'].includes(job.status)) return job
    await sleep(250)
  }
  throw new Error(`The job ${id} has not ended within five minutes.`)
}

async function startJob(context: Context, rows: Row[], n_epochs: number, purpose: string) {
  return connect(context).fineTuning.jobs.create({
    model: context.model,
    training_file: await upload(context, rows),
    seed: 7,
    method: {
      type: 'supervised',
      supervised: { hyperparameters: { n_epochs, batch_size: 4, learning_rate_multiplier: 1 } },
    },
    metadata: { client: context.name, purpose },
  })
}

/** A succeeded job of this client for `purpose`; made when there is none yet. */
async function succeededJob(context: Context, purpose: string, rows: Row[], n_epochs: number) {
  for await (const job of connect(context).fineTuning.jobs.list({
    metadata: { client: context.name, purpose },
  }))
    if (job.status === 'succeeded') return job
  const job = await ended(context, (await startJob(context, rows, n_epochs, purpose)).id)
  assert.equal(job.status, 'succeeded', JSON.stringify(job.error))
  return job
}

const plainJob = (context: Context) => succeededJob(context, 'plain', chatRows(12), 2)
const unicodeJob = (context: Context) =>
  succeededJob(
    context,
    'unicode',
    chatRows(12, () => ANSWER),
    30,
  )

/** Awaits an error of exactly this class and checks what the client could parse of it. */
async function refused(
  context: Context,
  asked: Promise<unknown>,
  expected: { status: number; code?: string | null; param?: string | null },
) {
  const error = await asked.then(
    () => assert.fail('The request was not refused.'),
    (error: unknown) => error,
  )
  assert(error instanceof context.OpenAI.APIError, String(error))
  const { BadRequestError, AuthenticationError, NotFoundError } = context.OpenAI
  const classes: Record<number, unknown> = {
    400: BadRequestError,
    401: AuthenticationError,
    404: NotFoundError,
  }
  assert.equal(error.constructor, classes[expected.status], `${error.status} ${error.message}`)
  assert.equal(error.status, expected.status)
  assert.equal(error.type, 'invalid_request_error')
  if (expected.code !== undefined) assert.equal(error.code ?? null, expected.code)
  if (expected.param !== undefined) assert.equal(error.param ?? null, expected.param)
  assert.match(error.message, new RegExp(`^${expected.status} \\S`))
  assert.match(error.requestID ?? '', /\S/)
}

async function failedJob(context: Context, rows: Row[], validation?: Row[]) {
  const client = connect(context)
  const created = await client.fineTuning.jobs.create({
    model: context.model,
    training_file: await upload(context, rows),
    ...(validation && { validation_file: await upload(context, validation) }),
  })
  const job = await ended(context, created.id)
  assert.equal(job.status, 'failed')
  assert(job.error)
  assert.notEqual(job.finished_at, null)
  assert.equal(job.fine_tuned_model, null)
  const events = await client.fineTuning.jobs.listEvents(job.id)
  const event = events.data.find((event) => event.level === 'error')
  assert.equal(event?.message, job.error.message)
  return { error: job.error, data: event?.data as { errors?: { line: number }[] } | undefined }
}

export const scenarios: Scenario[] = [
  {
    name: '1: a file becomes a job becomes a model that answers',
    async run(context) {
      const client = connect(context)
      const file = await client.files.create({
        file: await jsonl(context, chatRows(12)),
        purpose: 'fine-tune',
      })
      assert.match(file.id, /^file-/)
      const processed = await client.files.waitForProcessing(file.id)
      assert.equal(processed.status, 'processed')
      const created = await client.fineTuning.jobs.create({
        model: context.model,
        training_file: file.id,
        suffix: 'e2e',
        seed: 7,
        hyperparameters: { n_epochs: 1 },
      })
      assert.match(created.id, /^ftjob-/)
      assert.equal(created.status, 'validating_files')
      const job = await ended(context, created.id)
      assert.equal(job.status, 'succeeded', JSON.stringify(job.error))
      assert.match(job.fine_tuned_model ?? '', /^ft:[^:]+:[^:]+:e2e:[A-Za-z0-9]{8}$/)
      assert.equal(job.seed, 7)
      assert.equal(job.hyperparameters.n_epochs, 1)
      assert.equal(typeof job.hyperparameters.batch_size, 'number')
      assert((job.trained_tokens ?? 0) > 0)
      const answer = await client.chat.completions.create({
        model: job.fine_tuned_model ?? '',
        messages: [{ role: 'user', content: 'Tell me about cat 3.' }],
        max_tokens: 16,
        temperature: 0,
      })
      assert.equal(answer.object, 'chat.completion')
      assert.equal(answer.model, job.fine_tuned_model)
      assert.equal(answer.choices[0]?.message.role, 'assistant')
      assert((answer.choices[0]?.message.content ?? '').length > 0)
      const { prompt_tokens, completion_tokens, total_tokens } = answer.usage ?? {}
      assert((completion_tokens ?? 0) > 0)
      assert.equal(total_tokens, (prompt_tokens ?? 0) + (completion_tokens ?? 0))
      assert.match(answer._request_id ?? '', /\S/)
    },
  },
  {
    name: '2: events are walked once, newest first, none lost while new ones arrive',
    async run(context) {
      const client = connect(context)
      const { id } = await startJob(context, chatRows(12), 10, 'events')
      let before: string[] = []
      let running = true
      const walk = async () => {
        const ids: string[] = []
        const messages: string[] = []
        for await (const event of client.fineTuning.jobs.listEvents(id, { limit: 2 })) {
          assert.match(event.id, /^ftevent-/)
          ids.push(event.id)
          // What OpenAI does not say carries a kind of ours, and may come anywhere.
          if ((event.data as { kind?: string } | null)?.kind === undefined)
            messages.push(event.message)
        }
        assert.equal(new Set(ids).size, ids.length, 'an event came twice')
        assert.deepEqual(ids.slice(ids.length - before.length), before, 'an older event was lost')
        before = ids
        return messages.reverse()
      }
      while (running) {
        running = !['succeeded', 'failed'].includes(
          (await client.fineTuning.jobs.retrieve(id)).status,
        )
        await walk()
      }
      const job = await client.fineTuning.jobs.retrieve(id)
      assert.equal(job.status, 'succeeded', JSON.stringify(job.error))
      const messages = await walk()
      assert.deepEqual(messages.slice(0, 4), [
        `Created fine-tuning job: ${id}`,
        `Validating training file: ${job.training_file}`,
        'Files validated, moving job to queued state',
        'Fine-tuning job started',
      ])
      assert.deepEqual(messages.slice(-2), [
        `New fine-tuned model created: ${job.fine_tuned_model}`,
        'The job has successfully completed',
      ])
      const steps = messages.flatMap((text) => {
        const [, step, total] = /^Step (\d+)\/(\d+): training loss=\d+\.\d\d/.exec(text) ?? []
        return step === undefined ? [] : [[Number(step), Number(total)]]
      })
      assert.deepEqual(
        steps,
        Array.from({ length: 30 }, (_, i) => [i + 1, 30]),
      )
    },
  },
  {
    name: '3: every refusal is the right class with code, param, type and request id',
    async run(context) {
      const client = connect(context)
      const messages = [{ role: 'user' as const, content: 'Hello' }]
      const training_file = await upload(context, chatRows(12))
      await refused(context, connect(context, { apiKey: 'sk-wrong' }).models.list(), {
        status: 401,
        code: 'invalid_api_key',
      })
      await refused(context, client.chat.completions.create({ model: 'gpt-none', messages }), {
        status: 404,
        code: 'model_not_found',
      })
      await refused(context, client.models.retrieve('ft:none:luthier::abcdefgh'), {
        status: 404,
        code: 'model_not_found',
      })
      await refused(context, client.files.retrieve('file-none'), { status: 404, code: null })
      await refused(context, client.fineTuning.jobs.retrieve('ftjob-none'), { status: 404 })
      await refused(
        context,
        client.chat.completions.create({ model: context.model, messages, temperature: 3 }),
        { status: 400, param: 'temperature' },
      )
      await refused(
        context,
        client.chat.completions.create({ model: context.model, messages, max_tokens: 100_000 }),
        { status: 400, param: 'max_tokens' },
      )
      await refused(
        context,
        client.completions.create({ model: context.model, prompt: 'word '.repeat(2000) }),
        { status: 400, code: 'context_length_exceeded' },
      )
      await refused(
        context,
        client.fineTuning.jobs.create({
          model: context.model,
          training_file,
          method: { type: 'supervised', supervised: { hyperparameters: { n_epochs: 0 } } },
        }),
        { status: 400, param: 'method.supervised.hyperparameters.n_epochs' },
      )
      await refused(
        context,
        client.fineTuning.jobs.create({
          model: context.model,
          training_file,
          n_epoch: 3,
        } as OpenAI.FineTuning.JobCreateParams),
        { status: 400, code: 'unknown_parameter', param: 'n_epoch' },
      )
      await refused(
        context,
        client.fineTuning.jobs.create({
          model: context.model,
        } as OpenAI.FineTuning.JobCreateParams),
        { status: 400, code: 'missing_required_parameter', param: 'training_file' },
      )
      await refused(
        context,
        client.files.create({
          file: await jsonl(context, chatRows(1)),
          purpose: 'poetry' as 'evals',
        }),
        { status: 400, param: 'purpose' },
      )
      await refused(
        context,
        client.files.create({
          file: await jsonl(context, chatRows(1), 'rows.txt'),
          purpose: 'fine-tune',
        }),
        { status: 400, param: 'file' },
      )
      await refused(context, client.models.delete(context.model), { status: 400 })
    },
  },
  {
    name: '4: cancelling a finished job is refused at once, without a retry',
    async run(context) {
      const job = await plainJob(context)
      let requests = 0
      const client = new context.OpenAI({
        baseURL: context.baseURL,
        apiKey: context.apiKey,
        fetch: (input, init) => {
          requests++
          return fetch(input, init)
        },
      })
      await refused(context, client.fineTuning.jobs.cancel(job.id), { status: 400 })
      assert.equal(requests, 1)
    },
  },
  {
    name: 'a running job is cancelled, and stays so',
    async run(context) {
      const client = connect(context)
      const { id } = await startJob(context, chatRows(40), 50, 'cancel')
      while ((await client.fineTuning.jobs.retrieve(id)).status !== 'running') await sleep(50)
      await client.fineTuning.jobs.cancel(id)
      const job = await ended(context, id)
      assert.equal(job.status, 'cancelled')
      assert.notEqual(job.finished_at, null)
      assert.equal(job.error, null)
      assert.equal(job.fine_tuned_model, null)
    },
  },
  {
    name: '5: a job created twice under one Idempotency-Key is one job',
    async run(context) {
      const client = connect(context)
      const training_file = await upload(context, chatRows(12))
      const metadata = { client: context.name, purpose: 'idempotency' }
      const body = { model: context.model, training_file, metadata }
      const options = { headers: { 'Idempotency-Key': `once-${training_file}` } }
      const created = await Promise.all(
        [1, 2, 3].map(() => client.fineTuning.jobs.create(body, options)),
      )
      created.push(await client.fineTuning.jobs.create(body, options))
      assert.deepEqual(new Set(created.map(({ id }) => id)).size, 1)
      const listed = []
      for await (const job of client.fineTuning.jobs.list({ metadata })) listed.push(job.id)
      assert.equal(listed.filter((id) => id === created[0]?.id).length, 1)
      await refused(context, client.fineTuning.jobs.create({ ...body, seed: 1 }, options), {
        status: 400,
        code: 'idempotency_key_reused',
      })
      await client.fineTuning.jobs.cancel(created[0]?.id ?? '').catch(() => {})
    },
  },
  {
    name: '10: a job that is paused and resumed ends with the weights of an undisturbed one',
    async run(context) {
      const client = connect(context)
      const { fineTuning } = client
      const start = async () => (await startJob(context, chatRows(24), 10, 'pause')).id
      const undisturbed = await ended(context, await start())
      assert.equal(undisturbed.status, 'succeeded', JSON.stringify(undisturbed.error))

      const id = await start()
      await refused(context, fineTuning.jobs.resume(id), { status: 400, code: 'invalid_job_state' })
      while ((await fineTuning.jobs.retrieve(id)).estimated_finish === null) await sleep(20)
      const paused = await fineTuning.jobs.pause(id)
      assert.equal(String(paused.status), 'paused')
      assert.equal(paused.estimated_finish, null)
      await refused(context, fineTuning.jobs.pause(id), { status: 400, code: 'invalid_job_state' })

      const [checkpoint] = (await fineTuning.jobs.checkpoints.list(id)).data
      assert(checkpoint)
      assert.equal(checkpoint.metrics.step, checkpoint.step_number)
      assert.match(checkpoint.fine_tuned_model_checkpoint, /^ft:.+:ckpt-step-\d+$/)
      const answer = await client.chat.completions.create({
        model: checkpoint.fine_tuned_model_checkpoint,
        messages: [{ role: 'user', content: 'Tell me about cat 3.' }],
        max_tokens: 4,
      })
      assert.equal(answer.model, checkpoint.fine_tuned_model_checkpoint)

      const resumed = await fineTuning.jobs.resume(id)
      assert.equal(resumed.status, 'queued')
      const job = await ended(context, id)
      assert.equal(job.status, 'succeeded', JSON.stringify(job.error))
      assert.equal(job.trained_tokens, undisturbed.trained_tokens)
      const messages = (await fineTuning.jobs.listEvents(id, { limit: 1000 })).data.map(
        ({ message }) => message,
      )
      const told = messages.filter((message) => /^Job (paused|resumed)$/.test(message))
      assert.deepEqual(told, ['Job resumed', 'Job paused'])

      // The fingerprint is made of the adapter's bytes.
      const fingerprint = async (model: string | null) => {
        const { system_fingerprint } = await client.chat.completions.create({
          model: model ?? '',
          messages: [{ role: 'user', content: 'Tell me about cat 3.' }],
          max_tokens: 1,
        })
        return system_fingerprint
      }
      const weights = await fingerprint(job.fine_tuned_model)
      assert.match(weights ?? '', /^fp_/)
      assert.equal(weights, await fingerprint(undisturbed.fine_tuned_model))
      const csv = async (file: string | undefined) =>
        (await client.files.content(file ?? '')).text()
      assert.equal(await csv(job.result_files[0]), await csv(undisturbed.result_files[0]))
      await refused(context, fineTuning.jobs.pause(id), { status: 400 })
    },
  },
  {
    name: '6: a stream says its usage, and its deltas are the text of the answer',
    async run(context) {
      const client = connect(context)
      const request = {
        model: context.model,
        messages: [{ role: 'user' as const, content: 'Once upon a time' }],
        max_tokens: 40,
        temperature: 0,
      }
      const whole = await client.chat.completions.create(request)
      let text = ''
      let finish: string | null = null
      let usage: OpenAI.CompletionUsage | null | undefined
      for await (const chunk of await client.chat.completions.create({
        ...request,
        stream: true,
        stream_options: { include_usage: true },
      })) {
        assert.equal(chunk.object, 'chat.completion.chunk')
        if (chunk.usage) {
          assert.deepEqual(chunk.choices, [])
          usage = chunk.usage
          continue
        }
        text += chunk.choices[0]?.delta.content ?? ''
        finish = chunk.choices[0]?.finish_reason ?? finish
      }
      assert.equal(text, whole.choices[0]?.message.content)
      assert.equal(finish, whole.choices[0]?.finish_reason)
      assert.deepEqual(
        { prompt: usage?.prompt_tokens, completion: usage?.completion_tokens },
        { prompt: whole.usage?.prompt_tokens, completion: whole.usage?.completion_tokens },
      )
    },
  },
  {
    name: '6: a stream never cuts a character in two',
    async run(context) {
      const client = connect(context)
      const request = {
        model: (await unicodeJob(context)).fine_tuned_model ?? '',
        messages: [{ role: 'user' as const, content: 'Tell me about cat 3.' }],
        max_tokens: 32,
        temperature: 0,
      }
      const whole =
        (await client.chat.completions.create(request)).choices[0]?.message.content ?? ''
      assert(
        /[\u{80}-\u{fffc}\u{10000}-\u{10ffff}]/u.test(whole),
        `nothing multi-byte in: ${whole}`,
      )
      let text = ''
      for await (const chunk of await client.chat.completions.create({
        ...request,
        stream: true,
      })) {
        const delta = chunk.choices[0]?.delta.content ?? ''
        assert(!/\p{Surrogate}/u.test(delta), `half a surrogate pair: ${JSON.stringify(delta)}`)
        text += delta
      }
      // A code point that was cut would read as replacement characters, which the whole text has not.
      assert.equal(text, whole)
    },
  },
  {
    name: '6: a client that goes away frees its place',
    async run(context) {
      const client = connect(context, { maxRetries: 0 })
      const messages = [{ role: 'user' as const, content: 'Once upon a time' }]
      const short = () =>
        client.chat.completions.create({ model: context.model, messages, max_tokens: 1 })
      // 128 is the most choices a request may ask for, and two such requests fill what a project may have.
      const streams = await Promise.all(
        [1, 2].map((seed) =>
          client.chat.completions.create({
            model: context.model,
            messages,
            n: 128,
            max_tokens: 450,
            temperature: 1,
            seed,
            stream: true,
          }),
        ),
      )
      await assert.rejects(short(), { status: 429 })
      for (const stream of streams) stream.controller.abort()
      const freed = Date.now()
      while (true)
        try {
          await short()
          break
        } catch (error) {
          assert(error instanceof context.OpenAI.RateLimitError, String(error))
          assert(Date.now() - freed < 5000, 'the places of aborted streams are still taken')
          await sleep(50)
        }
    },
  },
  {
    name: '11: the result file has the five columns and a row for every step',
    async run(context) {
      const client = connect(context)
      const job = await plainJob(context)
      const [id] = job.result_files
      assert(id)
      assert.equal((await client.files.retrieve(id)).purpose, 'fine-tune-results')
      const csv = await (await client.files.content(id)).text()
      const [head, ...rows] = csv.trimEnd().split('\n')
      assert.equal(head, 'step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy')
      assert.deepEqual(
        rows.map((row) => row.split(',')[0]),
        ['1', '2', '3', '4', '5', '6'],
      )
      for (const row of rows) {
        const [, loss, accuracy, ...validation] = row.split(',')
        assert(Number(loss) > 0)
        assert(Number(accuracy) >= 0 && Number(accuracy) <= 1)
        assert.deepEqual(validation, ['', ''])
      }
    },
  },
  {
    name: '11: a checkpoint of each of the last epochs is listed, and answers',
    async run(context) {
      const client = connect(context)
      const job = await plainJob(context)
      const checkpoints = await client.fineTuning.jobs.checkpoints.list(job.id)
      assert.deepEqual(
        checkpoints.data.map((checkpoint) => checkpoint.step_number),
        [6, 3],
      )
      const [last, first] = checkpoints.data.map((c) => c.fine_tuned_model_checkpoint)
      assert.equal(last, job.fine_tuned_model)
      assert.equal(first, `${job.fine_tuned_model}:ckpt-step-3`)
      const answer = await client.chat.completions.create({
        model: first ?? '',
        messages: [{ role: 'user', content: 'Tell me about cat 3.' }],
        max_tokens: 8,
      })
      assert.equal(answer.model, first)
    },
  },
  {
    name: '12: a row without a role fails the job in the known words, with every bad line',
    async run(context) {
      const rows = chatRows(12)
      for (const i of [4, 9])
        rows[i] = { messages: [{ role: 'user', content: 'x' }, { content: 'y' }] }
      const { error, data } = await failedJob(context, rows)
      assert.equal(error.code, 'invalid_training_file')
      assert.equal(error.param, 'training_file')
      assert.equal(
        error.message,
        "The job failed due to an invalid training file. Invalid file format. Example 5, message 2 Discriminator 'role' is missing in value",
      )
      assert.deepEqual([...new Set(data?.errors?.map((row) => row.line))], [5, 10])
    },
  },
  {
    name: '12: rows of no known format fail the job in the known words',
    async run(context) {
      const rows = Array.from({ length: 12 }, (_, i) => ({ question: `q${i}`, answer: 'a' }))
      const { error } = await failedJob(context, rows)
      assert.equal(error.code, 'invalid_training_file')
      assert.equal(error.param, 'training_file')
      assert.equal(
        error.message,
        'The job failed due to an invalid training file. unexpected file format, expected either prompt/completion pairs or chat messages.',
      )
    },
  },
  {
    name: '12: too few examples fail the job in the known words, chat and completion rows alike',
    async run(context) {
      const completions = Array.from({ length: 7 }, (_, i) => ({
        prompt: `p${i}`,
        completion: 'c',
      }))
      for (const rows of [chatRows(7), completions]) {
        const { error } = await failedJob(context, rows)
        assert.deepEqual(
          { ...error },
          {
            code: 'invalid_n_examples',
            message: 'Training file has 7 example(s), but must have at least 10 examples',
            param: 'training_file',
          },
        )
      }
    },
  },
  {
    name: '12: a bad validation file is named as such',
    async run(context) {
      const { error } = await failedJob(context, chatRows(12), [
        { messages: [{ content: 'no role' }, { role: 'assistant', content: 'y' }] },
      ])
      assert.equal(error.code, 'invalid_validation_file')
      assert.equal(error.param, 'validation_file')
      assert.match(error.message, /Example 1, message 1 Discriminator 'role' is missing in value$/)
    },
  },
  {
    name: '13: a tuned model is found with a colon and with %3A, and after its deletion no more',
    async run(context) {
      const client = connect(context)
      const job = await ended(context, (await startJob(context, chatRows(12), 1, 'delete')).id)
      const id = job.fine_tuned_model ?? ''
      assert.equal((await client.models.retrieve(id)).id, id)
      for (const path of [id, id.replaceAll(':', '%3A')]) {
        const response = await fetch(`${context.baseURL}/models/${path}`, {
          headers: { authorization: `Bearer ${context.apiKey}` },
        })
        assert.equal(response.status, 200)
        assert.equal(((await response.json()) as { id: string }).id, id)
      }
      const listed: string[] = []
      for await (const model of client.models.list()) listed.push(model.id)
      assert(listed.includes(id) && listed.includes(context.model))
      assert.deepEqual(
        { ...(await client.models.delete(id)) },
        { id, object: 'model', deleted: true },
      )
      const gone = { status: 404, code: 'model_not_found' }
      await refused(context, client.models.retrieve(id), gone)
      await refused(context, client.models.delete(id), gone)
      await refused(
        context,
        client.chat.completions.create({ model: id, messages: [{ role: 'user', content: 'x' }] }),
        gone,
      )
      assert.equal((await client.fineTuning.jobs.retrieve(job.id)).status, 'succeeded')
    },
  },
  {
    name: '16: a batch is created, polled, cancelled, listed, and its files are read',
    async run(context) {
      const client = connect(context)
      const url = '/v1/chat/completions' as const
      const requests = (max_tokens: number): Row[] =>
        ['Tom', 'Kitty', 'Felix'].map((custom_id) => ({
          custom_id,
          method: 'POST',
          url,
          body: {
            model: context.model,
            messages: [{ role: 'user', content: `Tell me about ${custom_id}.` }],
            max_tokens,
            temperature: 0,
          },
        }))
      const start = async (rows: Row[]) => {
        const file = await client.files.create({
          file: await jsonl(context, rows),
          purpose: 'batch',
        })
        return client.batches.create({
          input_file_id: file.id,
          endpoint: url,
          completion_window: '24h',
          metadata: { client: context.name },
        })
      }
      const whole = async (id: string) => {
        for (let i = 0; i < 600; i++) {
          const batch = await client.batches.retrieve(id)
          if (!['validating', 'in_progress', 'finalizing', 'cancelling'].includes(batch.status))
            return batch
          await sleep(100)
        }
        throw new Error(`The batch ${id} has not ended within a minute.`)
      }

      const batch = await whole((await start(requests(8))).id)
      assert.equal(batch.status, 'completed', JSON.stringify(batch.errors))
      assert.deepEqual(batch.request_counts, { total: 3, completed: 3, failed: 0 })
      assert.equal(batch.error_file_id, undefined)
      const output = await (await client.files.content(batch.output_file_id ?? '')).text()
      const answers = output
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line))
      assert.deepEqual(
        answers.map(({ custom_id }) => custom_id),
        ['Tom', 'Kitty', 'Felix'],
      )
      const [first] = requests(8)
      const direct = await client.chat.completions.create(
        first?.body as OpenAI.Chat.ChatCompletionCreateParamsNonStreaming,
      )
      assert.equal(answers[0].response.status_code, 200)
      assert.equal(
        answers[0].response.body.choices[0].message.content,
        direct.choices[0]?.message.content,
      )

      const bad = await whole((await start([{ custom_id: 'x' }])).id)
      assert.equal(bad.status, 'failed')
      assert.equal(bad.errors?.data?.[0]?.line, 1)
      assert.equal(bad.errors?.data?.[0]?.code, 'missing_required_parameter')

      const other = await start(requests(400))
      await client.batches.cancel(other.id)
      assert.equal((await whole(other.id)).status, 'cancelled')
      const listed: string[] = []
      for await (const one of client.batches.list({ limit: 2 }))
        if (one.metadata?.client === context.name) listed.push(one.id)
      assert.deepEqual(listed.slice(0, 3), [other.id, bad.id, batch.id])
    },
  },
  {
    name: '15: an eval is created, run over a file by a model and by given samples, and read row by row',
    async run(context) {
      const client = connect(context)
      const criteria = {
        type: 'string_check',
        name: 'names the cat',
        input: '{{sample.output_text}}',
        reference: '{{item.name}}',
        operation: 'ilike',
      } as const
      const made = await client.evals.create({
        name: 'cats',
        metadata: { client: context.name },
        data_source_config: {
          type: 'custom',
          item_schema: { type: 'object', properties: { name: { type: 'string' } } },
          include_sample_schema: true,
        },
        testing_criteria: [criteria],
      })
      assert.equal((await client.evals.retrieve(made.id)).name, 'cats')
      assert.equal((await client.evals.update(made.id, { name: 'dogs' })).name, 'dogs')
      const rows = ['Tom', 'Kitty', 'Felix'].map((name) => ({ item: { name } }))
      const file = await client.files.create({ file: await jsonl(context, rows), purpose: 'evals' })

      const whole = async (id: string) => {
        for (let i = 0; i < 600; i++) {
          const run = await client.evals.runs.retrieve(id, { eval_id: made.id })
          if (!['queued', 'in_progress'].includes(run.status)) return run
          await sleep(100)
        }
        throw new Error(`The run ${id} has not ended within a minute.`)
      }
      const asked = await client.evals.runs.create(made.id, {
        name: 'by the model',
        data_source: {
          type: 'completions',
          model: context.model,
          input_messages: {
            type: 'template',
            template: [{ role: 'user', content: 'Tell me about {{item.name}}.' }],
          },
          sampling_params: { temperature: 0, max_completion_tokens: 8 },
          source: { type: 'file_id', id: file.id },
        },
      })
      const told = await client.evals.runs.create(made.id, {
        data_source: {
          type: 'jsonl',
          source: {
            type: 'file_content',
            content: rows.map(({ item }) => ({
              item,
              sample: { output_text: `tom or ${item.name}` },
            })),
          },
        },
      })
      const run = await whole(asked.id)
      assert.equal(run.status, 'completed', JSON.stringify(run.error))
      assert.equal(run.result_counts.total, 3)
      assert.equal(run.per_model_usage[0]?.model_name, context.model)
      assert.equal((await whole(told.id)).result_counts.passed, 3)

      const seen: number[] = []
      for await (const item of client.evals.runs.outputItems.list(asked.id, {
        eval_id: made.id,
        limit: 2,
      })) {
        seen.push(item.datasource_item_id)
        const alone = { eval_id: made.id, run_id: asked.id }
        const same = await client.evals.runs.outputItems.retrieve(item.id, alone)
        assert.deepEqual(same.results, item.results)
        assert.equal(
          item.sample.input[0]?.content,
          `Tell me about ${rows[seen.length - 1]?.item.name}.`,
        )
      }
      assert.deepEqual(seen, [0, 1, 2])
      const runs: string[] = []
      for await (const one of client.evals.runs.list(made.id, { limit: 1 })) runs.push(one.id)
      assert.deepEqual(runs, [asked.id, told.id])
      const state = { status: 400, code: 'invalid_run_state' }
      await refused(context, client.evals.runs.cancel(asked.id, { eval_id: made.id }), state)
      await client.evals.runs.delete(told.id, { eval_id: made.id })

      const graded = await client.fineTuning.alpha.graders.run({
        grader: criteria,
        item: { name: 'Tom' },
        model_sample: 'this is tom',
      })
      assert.equal(graded.reward, 1)
      await refused(
        context,
        client.fineTuning.alpha.graders.validate({
          grader: { type: 'python', name: 'p', source: 'def grade(sample, item): return 1.0' },
        }),
        { status: 400, code: 'unsupported_grader', param: 'grader' },
      )
      assert.equal((await client.evals.delete(made.id)).deleted, true)
      await refused(context, client.evals.retrieve(made.id), { status: 404 })
    },
  },
  {
    name: '16: responses are created, streamed, parsed, gone on from, read again and deleted',
    async run(context) {
      const client = connect(context)
      const asked = {
        model: context.model,
        input: 'Tell me about a cat.',
        temperature: 0,
        max_output_tokens: 16,
      }
      const whole = await client.responses.create({ ...asked, metadata: { client: context.name } })
      assert.match(whole.id, /^resp_/)
      assert.equal(whole.object, 'response')
      assert(whole.output_text.length > 0)
      assert.equal(whole.usage?.output_tokens, 16)

      let text = ''
      const types = new Set<string>()
      for await (const event of await client.responses.create({ ...asked, stream: true })) {
        types.add(event.type)
        if (event.type === 'response.output_text.delta') text += event.delta
      }
      assert.equal(text, whole.output_text)
      assert.deepEqual(
        [...types],
        [
          'response.created',
          'response.in_progress',
          'response.output_item.added',
          'response.content_part.added',
          'response.output_text.delta',
          'response.output_text.done',
          'response.content_part.done',
          'response.output_item.done',
          'response.incomplete',
        ],
      )
      const helped = await client.responses.stream(asked).finalResponse()
      assert.equal(helped.output_text, text)

      const schema = {
        type: 'object',
        properties: { pet: { enum: ['cat', 'dog'] } },
        required: ['pet'],
        additionalProperties: false,
      }
      const parsed = await client.responses.parse({
        model: context.model,
        input: 'Which pet?',
        text: { format: { type: 'json_schema', name: 'pet', strict: true, schema } },
      })
      assert.match(parsed.output_text, /^\{ ?"pet": ?"(cat|dog)" ?\}$/)

      const called = await client.responses.parse({
        model: context.model,
        input: 'Which pet?',
        tools: [{ type: 'function', name: 'buy', parameters: schema, strict: true }],
        tool_choice: 'required',
        parallel_tool_calls: false,
      })
      const call = called.output[0]
      assert(call?.type === 'function_call')
      assert.match((call.parsed_arguments as { pet: string }).pet, /^(cat|dog)$/)
      const result = {
        type: 'function_call_output' as const,
        call_id: call.call_id,
        output: 'sold',
      }
      const next = await client.responses.create({
        ...asked,
        previous_response_id: called.id,
        input: [result],
      })
      assert.equal(next.previous_response_id, called.id)
      // What the client got may be sent back as it is.
      const { parsed_arguments: _, ...asGot } = call
      const sent = await client.responses.create({
        ...asked,
        input: [{ role: 'user', content: 'Which pet?' }, asGot, result],
      })
      assert.equal(sent.output_text, next.output_text)
      assert.equal(sent.usage?.input_tokens, next.usage?.input_tokens)

      const read = await client.responses.retrieve(whole.id)
      assert.equal(read.output_text, whole.output_text)
      assert.deepEqual(read.metadata, { client: context.name })
      const items: string[] = []
      for await (const item of client.responses.inputItems.list(whole.id))
        items.push(JSON.stringify(item))
      assert.equal(items.length, 1)
      assert.match(items[0] ?? '', /Tell me about a cat\./)
      await client.responses.delete(whole.id)
      await refused(context, client.responses.retrieve(whole.id), { status: 404 })
      await refused(
        context,
        client.responses.create({ ...asked, previous_response_id: whole.id }),
        { status: 400, code: 'previous_response_not_found', param: 'previous_response_id' },
      )
      await refused(
        context,
        client.responses.create({ ...asked, tools: [{ type: 'web_search' }] }),
        { status: 400, code: 'unsupported_tool', param: 'tools[0].type' },
      )
    },
  },
  {
    name: '17: chat completions are stored, listed, noted upon and deleted',
    async run(context) {
      const client = connect(context)
      const of = `stored by ${context.name}`
      const asked = {
        model: context.model,
        messages: [{ role: 'user' as const, content: 'Tell me about a cat.' }],
        max_tokens: 4,
        store: true,
        metadata: { of },
      }
      const first = await client.chat.completions.create(asked)
      const second = await client.chat.completions.stream(asked).finalChatCompletion()
      const listed: string[] = []
      for await (const { id } of client.chat.completions.list({ metadata: { of }, limit: 1 }))
        listed.push(id)
      assert.deepEqual(listed, [first.id, second.id])
      const read = await client.chat.completions.retrieve(second.id)
      assert.equal(read.choices[0]?.message.content, second.choices[0]?.message.content)
      const { data } = await client.chat.completions.messages.list(first.id)
      assert.equal(data[0]?.content, 'Tell me about a cat.')
      await client.chat.completions.update(first.id, { metadata: { of: 'nobody' } })
      assert.equal((await client.chat.completions.list({ metadata: { of } })).data.length, 1)
      for (const { id } of [first, second]) {
        assert.equal((await client.chat.completions.delete(id)).deleted, true)
        await refused(context, client.chat.completions.retrieve(id), { status: 404 })
      }
    },
  },
]
