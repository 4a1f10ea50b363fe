// What a job may choose of method, adapter, schedule and rows, each from the request to what it changes.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type OpenAI from 'openai'
import { toFile } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openTokenizer, type Tokenizer } from '../../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../../src/engine/weights/checkpoint.ts'
import { type InferenceServer, startInferenceServer } from '../../support/inference-server.ts'
import { shared } from '../../support/shared.ts'

const stories = shared('models/stories260k')

interface Row {
  prompt: string
  completion: string
}

interface Options {
  hyperparameters?: object
  rows?: readonly object[]
  validation?: readonly object[]
  model?: string
  seed?: number
  type?: string
}

/** Of the checkpoint that is published. */
const lowest = (metrics: readonly Record<string, number>[]): number =>
  Math.min(...metrics.flatMap((m) => m.full_valid_loss ?? []))

describe.skipIf(stories.missing)('a job', () => {
  let folder: string
  let server: InferenceServer
  let client: OpenAI
  let tokenizer: Tokenizer

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'luthier-methods-'))
    server = await startInferenceServer(stories.path, folder)
    client = server.client
    tokenizer = await openTokenizer(await openCheckpoint(stories.path))
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  const upload = async (rows: readonly object[]) => {
    const text = rows.map((row) => JSON.stringify(row)).join('\n')
    const file = await toFile(Buffer.from(text), 'rows.jsonl')
    return (await client.files.create({ file, purpose: 'fine-tune' })).id
  }

  const completions = Array.from({ length: 12 }, (_, i) => ({
    prompt: `Cat ${i} said`,
    completion: ` hello ${i * 7}.`,
  }))

  /** The job at its end, and the data of its metrics events in order. */
  async function run(options: Options) {
    const { hyperparameters = {}, rows = completions, validation, type = 'supervised' } = options
    const job = await client.fineTuning.jobs.create({
      model: options.model ?? 'stories260k',
      training_file: await upload(rows),
      ...(validation && { validation_file: await upload(validation) }),
      seed: options.seed ?? 3,
      method: { type, [type]: { hyperparameters } } as OpenAI.FineTuning.JobCreateParams['method'],
    } as OpenAI.FineTuning.JobCreateParams)
    let last = job
    while (!['succeeded', 'failed'].includes(last.status)) {
      await sleep(50)
      last = await client.fineTuning.jobs.retrieve(job.id)
    }
    const events = []
    for await (const event of client.fineTuning.jobs.listEvents(job.id)) events.unshift(event)
    const metrics = events.flatMap(({ type, data }) =>
      type === 'metrics' ? [data as Record<string, number>] : [],
    )
    return { job: last, events, metrics, losses: metrics.map((m) => m.train_loss!) }
  }

  const short = { n_epochs: 1, batch_size: 2, learning_rate: 0.01 }

  /** ln p of what follows the prompt, its end included. */
  async function logProbs(model: string, { prompt, completion = '' }: Partial<Row>) {
    const before = tokenizer.encode(prompt!, { special: true })
    const all = [...before, ...tokenizer.encode(completion, { continues: true }), 2]
    const { choices } = await client.completions.create({
      model,
      prompt: all,
      echo: true,
      logprobs: 0,
      max_tokens: 0,
    })
    const learned = choices[0]!.logprobs!.token_logprobs!.slice(before.length)
    expect(learned).toHaveLength(all.length - before.length)
    return learned
  }

  const lossOf = async (model: string, row: Row) => {
    const learned = await logProbs(model, row)
    return -learned.reduce((sum, x) => sum + x, 0) / learned.length
  }

  test('of every adapter kind at once is answered by what it has trained', async () => {
    const lora = {
      rank: 4,
      alpha: 6,
      target_modules: ['q_proj', 'v_proj', 'down_proj'],
      dropout: 0.1,
      use_rslora: true,
      use_dora: true,
    }
    const hyperparameters = { ...short, n_epochs: 6, lora, loraplus_lr_ratio: 4 }
    const { job, metrics } = await run({ hyperparameters, validation: [completions[0]!] })
    expect(job.method!.supervised!.hyperparameters).toEqual({
      ...hyperparameters,
      learning_rate_multiplier: 1,
    })
    const full_valid_loss = lowest(metrics)
    expect(full_valid_loss).toBeLessThan(metrics[0]!.train_loss! - 1)
    // Training's loss without dropout, and what serving computes with the saved adapter.
    const served = await lossOf(job.fine_tuned_model!, completions[0]!)
    expect(Math.abs(served - full_valid_loss) / full_valid_loss).toBeLessThan(1e-3)
  })

  test('of all weights is answered by them, and goes on from them', async () => {
    const hyperparameters = { ...short, n_epochs: 6, learning_rate: 1e-3, adapter: 'none' }
    const validation = [completions[0]!]
    const { job, metrics } = await run({ hyperparameters, validation })
    const full_valid_loss = lowest(metrics)
    expect(full_valid_loss).toBeLessThan(metrics[0]!.train_loss! - 1)
    const served = await lossOf(job.fine_tuned_model!, completions[0]!)
    expect(Math.abs(served - full_valid_loss) / full_valid_loss).toBeLessThan(1e-3)

    const more = await run({ hyperparameters, model: job.fine_tuned_model! })
    expect(more.losses[0]).toBeLessThan(metrics[0]!.train_loss! - 1)
    const lora = await run({ hyperparameters: short, model: job.fine_tuned_model! })
    expect(lora.job.status).toBe('failed')
  })

  describe('learns otherwise with', () => {
    let plain: number[]
    beforeAll(async () => {
      plain = (await run({ hyperparameters: short })).losses
      expect(plain).toHaveLength(6)
    })

    test.each<[string, object]>([
      ['another rank', { lora: { rank: 2 } }],
      ['another alpha', { lora: { alpha: 1 } }],
      ['other projections', { lora: { target_modules: ['o_proj'] } }],
      ['rsLoRA', { lora: { alpha: 16, use_rslora: true } }],
      ['DoRA', { lora: { use_dora: true } }],
      ['dropout', { lora: { dropout: 0.5 } }],
      ['LoRA+', { loraplus_lr_ratio: 8 }],
      ['a cosine', { lr_schedule: 'cosine' }],
      ['a constant rate', { lr_schedule: 'constant' }],
      ['a longer warm-up', { warmup_ratio: 1 }],
      ['weight decay', { weight_decay: 50 }],
      ['shorter gradients', { max_grad_norm: 1e-9 }],
      ['another multiplier', { learning_rate: undefined, learning_rate_multiplier: 3 }],
    ])('%s', async (_, change) => {
      const { job, losses } = await run({ hyperparameters: { ...short, ...change } })
      expect(job.error).toBe(null)
      expect(losses).toHaveLength(6)
      // Nothing of this changes what an untrained adapter does: B is zero.
      expect(losses[0]).toBeCloseTo(plain[0]!, 4)
      expect(losses[5]).not.toBeCloseTo(plain[5]!, 3)
    })

    test('all linear layers named by one word is what it is without', async () => {
      const lora = { target_modules: 'all-linear' }
      const { losses } = await run({ hyperparameters: { ...short, lora } })
      expect(losses).toEqual(plain)
    })

    test('another seed: other rows first; the same: the same numbers', async () => {
      expect((await run({ hyperparameters: short })).losses).toEqual(plain)
      const { losses } = await run({ hyperparameters: short, seed: 4 })
      expect(losses[0]).not.toBeCloseTo(plain[0]!, 3)
    })

    test('batches beyond one micro-batch: the mean over all of their tokens', async () => {
      // 1500 tokens a step, at most 512 of them at once.
      const long = {
        prompt: 'Cat',
        completion: ' said hello and went to the park to play.'.repeat(9),
      }
      const rows = [...completions, ...Array.from({ length: 12 }, () => long)]
      const hyperparameters = { ...short, batch_size: 24 }
      const { losses, job } = await run({ rows, hyperparameters })
      const each = []
      for (const row of rows) {
        const all = tokenizer.encode(row.completion, { continues: true }).length + 1
        each.push({ loss: await lossOf('stories260k', row), tokens: all })
      }
      const tokens = each.reduce((sum, row) => sum + row.tokens, 0)
      const mean = each.reduce((sum, row) => sum + row.loss * row.tokens, 0) / tokens
      expect(job.trained_tokens).toBe(tokens)
      expect(Math.abs(losses[0]! - mean) / mean).toBeLessThan(1e-3)
    })
  })

  test('fails where it names projections that the model has not', async () => {
    const { job } = await run({ hyperparameters: { lora: { target_modules: ['c_attn'] } } })
    expect(job.status).toBe('failed')
    expect(job.error).toMatchObject({
      code: 'invalid_value',
      param: 'method.supervised.hyperparameters.lora.target_modules',
      message: expect.stringContaining("no linear layers 'c_attn'"),
    })
  })

  describe('by preferences', () => {
    const pairs = completions.map(({ prompt }, i) => ({
      input: { messages: [{ role: 'user', content: prompt }] },
      preferred_output: [{ role: 'assistant', content: ` hello ${i}.` }],
      non_preferred_output: [{ role: 'assistant', content: ' go away, dog.' }],
    }))
    const dpo = { type: 'dpo', model: 'stories-chat', rows: pairs }

    test('tells rewards, and prefers what was preferred', async () => {
      const hyperparameters = { n_epochs: 4, batch_size: 4, learning_rate: 0.005, beta: 0.2 }
      const { job, events, metrics } = await run({ ...dpo, hyperparameters, validation: pairs })
      expect(job.error).toBe(null)
      expect(job.method).toEqual({
        type: 'dpo',
        dpo: { hyperparameters: { ...hyperparameters, learning_rate_multiplier: 1 } },
      })
      const [first, last] = [metrics[0]!, metrics.at(-1)!]
      expect(first).toMatchObject({ train_loss: expect.closeTo(Math.LN2, 3), total_steps: 12 })
      expect(first.train_rewards_margin).toBeCloseTo(0, 3)
      expect(last.train_loss).toBeLessThan(0.3)
      expect(last).toMatchObject({
        train_rewards_accuracy: 1,
        full_valid_rewards_accuracy: 1,
        train_mean_token_accuracy: expect.any(Number),
      })
      expect(last.train_rewards_margin).toBeCloseTo(
        last.train_rewards_chosen! - last.train_rewards_rejected!,
        5,
      )
      expect(events.map(({ message }) => message)).toEqual(
        expect.arrayContaining([
          expect.stringMatching(/^Step 12\/12: training loss=0\.\d\d, validation loss=0\.\d\d/),
          'The job has successfully completed',
        ]),
      )

      const csv = await (await client.files.content(job.result_files[0]!)).text()
      const [head, ...lines] = csv.trimEnd().split('\n')
      expect(head).toBe(
        'step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,rewards_chosen,rewards_rejected,rewards_margin,rewards_accuracy',
      )
      expect(lines).toHaveLength(12)
      expect(lines.at(-1)!.split(',').at(-1)).toBe('1')

      // How much likelier each answer has become, as serving computes it.
      const gained = async (completion: string) => {
        const row = { prompt: completions[1]!.prompt, completion }
        return (await lossOf('stories-chat', row)) - (await lossOf(job.fine_tuned_model!, row))
      }
      expect(await gained(' hello 1.')).toBeGreaterThan((await gained(' go away, dog.')) + 0.5)
    })

    test('starts from a tuned model, which then is the reference', async () => {
      const chats = pairs.map(({ input, preferred_output }) => ({
        messages: [...input.messages, ...preferred_output],
      }))
      const tuned = await run({ model: 'stories-chat', rows: chats, hyperparameters: short })
      const { job, metrics } = await run({
        ...dpo,
        model: tuned.job.fine_tuned_model!,
        hyperparameters: { ...short, learning_rate: 1e-3 },
      })
      expect(job.error).toBe(null)
      expect(metrics[0]!.train_loss).toBeCloseTo(Math.LN2, 3)
      expect(metrics.at(-1)!.train_loss).toBeLessThan(Math.LN2)
      const { beta } = job.method!.dpo!.hyperparameters as { beta: number }
      expect(beta).toBe(0.1)
    })

    test('fails on rows of another method, and on bad pairs with line and pointer', async () => {
      const { job } = await run({ ...dpo, rows: completions })
      expect(job.error).toMatchObject({
        code: 'invalid_training_file',
        message: expect.stringMatching(
          /Invalid file format\. Input file file-\w+ is in the fine-tune-completion format, but the specified fine-tuning job is not using 'supervised' as the training method \(provided method=dpo\)\.$/,
        ),
      })
      const bad = { ...pairs[0], preferred_output: [] }
      const { events } = await run({ ...dpo, rows: [...pairs, bad] })
      const { errors } = events.at(-1)!.data as { errors: object[] }
      expect(errors).toMatchObject([
        { line: 13, pointer: '/preferred_output', check: 'output_message_count' },
      ])
    })
  })

  test('learns of a chat the messages of weight 1 alone', async () => {
    const user = { role: 'user', content: 'Hi.' }
    const said = (content: string, weight?: number) => ({
      role: 'assistant',
      content,
      ...(weight !== undefined && { weight }),
    })
    const chats = (first?: number) =>
      Array.from({ length: 10 }, () => ({
        messages: [user, said(' Hello you.', first), user, said(' The cat ran.', 1)],
      }))
    const learned = async (first?: number) => {
      const { job } = await run({
        model: 'stories-chat',
        rows: chats(first),
        hyperparameters: short,
      })
      expect(job.error).toBe(null)
      return job.trained_tokens!
    }
    const both = await learned()
    expect(await learned(1)).toBe(both)
    const second = await learned(0)
    expect(second).toBe(10 * (tokenizer.encode(' The cat ran.', { continues: true }).length + 1))
    expect(both).toBeGreaterThan(second)
  })

  test('on plain text learns every token, so that the text comes of itself', async () => {
    const text = 'Lily and Tom had a red hat. They put it on the cat.'
    const rows = Array.from({ length: 10 }, () => ({ text }))
    const hyperparameters = { ...short, n_epochs: 12 }
    const { job } = await run({ rows, hyperparameters })
    // Its end is learned, its beginning is not.
    const tokens = tokenizer.encode(text, { special: true }).length
    expect(job.trained_tokens).toBe(12 * 10 * tokens)
    const { choices } = await client.completions.create({
      model: job.fine_tuned_model!,
      prompt: 'Lily and Tom',
      max_tokens: 20,
      temperature: 0,
    })
    expect(choices[0]!.text).toContain(' had a red hat. They put it')
    const endOf = async (model: string) => (await logProbs(model, { prompt: text })).at(-1)!
    expect(await endOf(job.fine_tuned_model!)).toBeGreaterThan((await endOf('stories260k')) + 3)
  })

  test('leaves out what is too long, and says how much; or refuses it; or cuts it', async () => {
    const long = { prompt: 'Cat', completion: ' hello'.repeat(40) }
    const rows = [...completions, long]
    const limit = { ...short, max_sequence_length: 32 }
    const ended = async (truncation?: string) => {
      const { job, events } = await run({
        rows,
        hyperparameters: { ...limit, ...(truncation && { truncation }) },
      })
      return { job, messages: events.map(({ message }) => message), events }
    }
    const cut = await ended()
    expect(cut.messages).toContain('1 example(s) are longer than 32 tokens and were truncated.')
    const dropped = await ended('drop')
    expect(dropped.messages).toContain('1 example(s) are longer than 32 tokens and were dropped.')
    expect(dropped.job.trained_tokens).toBeLessThan(cut.job.trained_tokens!)
    const refused = await ended('error')
    expect(refused.job.error).toMatchObject({
      code: 'invalid_training_file',
      message: expect.stringContaining('Example 13 is longer than 32 tokens'),
    })
  })
})
