// Merges whose weights an eval chooses, through the API of a real server: adapters, whole decoders, whole encoders with a
// head. What a search finds and says, killed in the middle, cancelled; and what it leaves behind, which is nothing.

import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { writeSafetensors } from '../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../src/engine/weights/stored-tensor.ts'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { type Reply, requestsTo } from '../support/requests.ts'
import { shared } from '../support/shared.ts'
import { writeTinyEncoder } from '../support/tiny-encoder.ts'

const stories = shared('models/stories260k')
const base = 'stories260k'
const MERGES = '/fine_tuning/alpha/merges'
const RIGHT = 'Hello, little cat.'
const WRONG = 'Good night, big dog.'
const LABELS = ['meadow', 'kitchen', 'four']
const BUDGET = 5

/** What is searched in one way. */
interface Kind {
  /** The eval that it goes by, and rows for it. */
  eval_id: string
  rows: object[]
  /** The worse end is where the search begins. */
  config: Record<string, unknown>
  /** The better end, and the worse. */
  ends: [string, string]
  /** How the result is exported. */
  format: string
}

const KINDS = ['adapters', 'decoders', 'encoders'] as const
/** Folders of caches that the result itself adds to. */
const ADDED = {
  adapters: { adapters: 1, folders: 0, weights: 0 },
  decoders: { adapters: 0, folders: 1, weights: 1 },
  encoders: { adapters: 0, folders: 1, weights: 1 },
}

describe.skipIf(stories.missing)('a merge whose weights an eval chooses', () => {
  let server: LuthierServer
  let kinds: Record<(typeof KINDS)[number], Kind>

  const { send, ask, until, ended, upload } = requestsTo(() => server)

  const startTuning = async (answer: string): Promise<string> => {
    const row = (i: number) => ({
      messages: [
        { role: 'user', content: `Animal ${i} came` },
        { role: 'assistant', content: answer },
      ],
    })
    const id = await upload(Array.from({ length: 16 }, (_, i) => row(i)))
    const hyperparameters = { n_epochs: 6, batch_size: 4, learning_rate: 0.003 }
    const method = { type: 'supervised', supervised: { hyperparameters } }
    return (await ask('/fine_tuning/jobs', { model: base, training_file: id, seed: 1, method })).id
  }
  const tuned = async (id: string): Promise<string> =>
    (await ended(`/fine_tuning/jobs/${id}`)).fine_tuned_model
  const newEval = async (): Promise<string> => {
    const criterion = {
      type: 'text_similarity',
      name: 'alike',
      input: '{{sample.output_text}}',
      reference: '{{item.answer}}',
      evaluation_metric: 'fuzzy_match',
      pass_threshold: 0.9,
    }
    const data_source_config = { type: 'custom', item_schema: { type: 'object' } }
    const request = { name: 'alike', data_source_config, testing_criteria: [criterion] }
    return (await ask('/evals', request)).id
  }
  const runOver = async (model: string, { eval_id, rows }: Kind): Promise<number> => {
    const source = { type: 'file_content', content: rows.map((item) => ({ item })) }
    const template = [{ role: 'user', content: '{{item.question}}' }]
    const data_source = {
      type: 'completions',
      model,
      source,
      input_messages: { type: 'template', template },
      sampling_params: { temperature: 0, max_completion_tokens: 24 },
    }
    const { id } = await ask(`/evals/${eval_id}/runs`, { data_source })
    await until(`/evals/${eval_id}/runs/${id}`, ({ status }) => status === 'completed')
    const { data } = await ask(`/evals/${eval_id}/runs/${id}/output_items`)
    const scores: number[] = data.map(({ results }: Reply) => results[0].score)
    return scores.reduce((sum, x) => sum + x, 0) / scores.length
  }
  const told = async (id: string): Promise<string[]> => {
    const { data } = await ask(`${MERGES}/${id}/events?limit=100`)
    const messages: string[] = data.map(({ message }: Reply) => message)
    return messages.filter((message) => message.startsWith('Candidate ')).toReversed()
  }
  const refusal = async (body: object): Promise<Reply> => {
    const reply = await send(MERGES, { config: body })
    expect(reply.status).toBe(400)
    return ((await reply.json()) as Reply).error
  }
  const cached = (kind: string): string[] => {
    const folder = join(server.home, 'cache', kind)
    return existsSync(folder) ? readdirSync(folder).toSorted() : []
  }
  /** Files of candidates that the server has in its memory, removed or not. */
  const mappedOfRuns = (): string[] => {
    const maps = readFileSync(`/proc/${server.pid}/maps`, 'utf8').split('\n')
    return maps.filter((line) => line.includes('.making-evalrun_'))
  }
  /** What a candidate could leave behind. */
  const left = async ({ eval_id }: Kind) => ({
    objects: (await server.stored()).toSorted(),
    runs: (await ask(`/evals/${eval_id}/runs?limit=100`)).data.map(({ id }: Reply) => id),
    models: (await ask('/models')).data.map(({ id }: Reply) => id),
    adapters: cached('adapters'),
    folders: cached('models'),
    weights: cached('weights'),
    mapped: mappedOfRuns(),
  })
  /** Writes the model again with another head. */
  const withHead = async (folder: string, head: (x: number) => number): Promise<void> => {
    const { tensors } = await openCheckpoint(folder)
    const all = await Promise.all(
      [...tensors.values()].map(async (tensor) => {
        const { name, dims } = tensor
        const data = await readTensor(tensor)
        return { name, dims, data: name.startsWith('classifier.') ? data.map(head) : data }
      }),
    )
    await writeFile(join(folder, 'model.safetensors'), writeSafetensors(all))
  }

  async function makeAdapters(): Promise<Pick<Kind, 'ends' | 'rows'>> {
    const jobs = [await startTuning(RIGHT), await startTuning(WRONG)]
    const question = (i: number) => `Animal ${100 + i} came`
    return {
      ends: [await tuned(jobs[0]!), await tuned(jobs[1]!)],
      rows: Array.from({ length: 8 }, (_, i) => ({ question: question(i), answer: RIGHT })),
    }
  }
  /** The better end is right by what it says itself. */
  async function askedOf(model: string): Promise<object[]> {
    const input = ['abc', 'hello', 'zebra', 'quick fox', 'lazy dog', 'mm']
    const { data } = await ask('/classifications', { model, input })
    return data.map(({ label }: Reply, i: number) => ({ question: input[i], answer: label }))
  }

  beforeAll(async () => {
    const home = makeHome({ [base]: stories.path, wordless: stories.path })
    const folder = (name: string) => join(home, 'models', name)
    rmSync(join(folder('wordless'), 'chat_template.jinja'))
    await writeTinyEncoder(folder('vectors'), { head: false })
    for (const name of ['plain', 'turned', 'broken'])
      await writeTinyEncoder(folder(name), { labels: LABELS })
    await withHead(folder('turned'), (x) => -x)
    await withHead(folder('broken'), () => Number.NaN)
    server = await startLuthier(home)

    const adapters = await makeAdapters()
    const search = { budget: BUDGET }
    const whole = (names: string[]) => ({
      models: names.map((model, i) => ({ model, parameters: { weight: i } })),
      // What is served of it is converted first.
      out_dtype: 'bfloat16',
      random_seed: 1,
    })
    const [forText, forLabels] = [await newEval(), await newEval()]
    kinds = {
      adapters: {
        ...adapters,
        eval_id: forText,
        config: {
          adapters: adapters.ends,
          weights: [0, 1],
          combination_type: 'cat',
          random_seed: 1,
          search: { ...search, eval: forText },
        },
        format: 'peft',
      },
      decoders: {
        ...adapters,
        eval_id: forText,
        config: {
          ...whole(adapters.ends.map((end) => `${base}+${end}`)),
          merge_method: 'task_arithmetic',
          base_model: base,
          search: { ...search, eval: forText },
        },
        format: 'hf',
      },
      encoders: {
        ends: ['plain', 'turned'],
        rows: await askedOf('plain'),
        eval_id: forLabels,
        config: {
          ...whole(['plain', 'turned']),
          merge_method: 'linear',
          search: { ...search, eval: forLabels },
        },
        format: 'hf',
      },
    }
  }, 120_000)
  afterAll(() => server?.[Symbol.asyncDispose]())

  test('needs an eval with something to run on', async () => {
    const { config, eval_id } = kinds.adapters
    expect(await refusal(config)).toMatchObject({
      param: 'search.eval',
      code: 'invalid_eval',
      message: expect.stringMatching(/no run of a model yet/),
    })
    const { eval: _, ...none } = config.search as Record<string, unknown>
    expect(await refusal({ ...config, search: { ...none, eval: 'eval_none' } })).toMatchObject({
      param: 'search.eval',
      message: expect.stringMatching(/`eval_none` does not exist/),
    })
    expect(await refusal({ ...config, search: none })).toMatchObject({
      param: 'search.validation_file',
      code: 'missing_required_parameter',
    })
    const both = { ...config, search: { eval: eval_id, validation_file: 'file-none' } }
    expect(await refusal(both)).toMatchObject({ param: 'search.eval' })
  })

  test.each(KINDS)(
    'of %s, killed in the middle, finds what is as good as the better one, says so, and leaves nothing',
    async (of) => {
      const kind = kinds[of]
      const { config, format } = kind
      const ends = [await runOver(kind.ends[0], kind), await runOver(kind.ends[1], kind)]
      expect(ends[0]).toBeGreaterThan(ends[1]! + 0.3)
      const before = await left(kind)

      const { id } = await ask(MERGES, { config })
      await until(`${MERGES}/${id}`, (merge) => (merge.chosen?.candidate ?? 0) >= 1)
      const done = await told(id)
      expect(done.length).toBeLessThan(BUDGET)
      await server.kill()
      await server.start()
      const { merged_model, chosen, status } = await ended(`${MERGES}/${id}`)
      expect(status).toBe('succeeded')
      const candidates = await told(id)
      // What was scored before is not asked again.
      expect(candidates.slice(0, done.length)).toEqual(done)
      const asked = server.log().filter(({ msg }) => msg === 'eval run started')
      expect(asked.length).toBeLessThanOrEqual(BUDGET - done.length)
      const scores = candidates.map((message) => Number(/score (\d\.\d{4})/.exec(message)![1]))
      expect(scores).toHaveLength(BUDGET)
      expect(scores[0]).toBeCloseTo(ends[1]!, of === 'adapters' ? 3 : 1)
      const best = Math.max(...scores)
      expect(best).toBeGreaterThan(scores[0]! + 0.3)
      expect(candidates[scores.indexOf(best)]).toMatch(/, the best$/)
      expect(chosen).toMatchObject({ candidate: scores.indexOf(best) + 1, budget: BUDGET })
      expect(chosen.score).toBeCloseTo(best, 3)
      expect(chosen.score).toBeGreaterThanOrEqual(ends[0]! - 0.05)
      const name = encodeURIComponent(merged_model)
      const { statement } = await ask(`/models/${name}/provenance`)
      expect(statement.merge.chosen).toEqual(chosen)
      const tar = await (await send(`/models/${name}/weights?format=${format}`)).arrayBuffer()
      expect(Buffer.from(tar).toString('latin1')).toContain(
        `candidate ${chosen.candidate} of ${BUDGET}: weights ${chosen.weights.join(', ')}, score ${chosen.score}`,
      )

      // Only the model itself is there, and what it is worth is what was said of its candidate.
      const after = await left(kind)
      expect(after.models.filter((one: string) => !before.models.includes(one))).toEqual([
        merged_model,
      ])
      expect(after.runs).toEqual(before.runs)
      expect(after.mapped).toEqual([])
      for (const [place, added] of Object.entries(ADDED[of]))
        expect(after[place as 'folders'], place).toHaveLength(
          before[place as 'folders'].length + added,
        )
      const own: string[] =
        of === 'adapters' ? [statement.weights.sha256] : Object.values(statement.base.files)
      const made = after.objects.filter((one) => !before.objects.includes(one))
      expect(made.length).toBeGreaterThan(0)
      if (of === 'adapters') expect(made).toHaveLength(2)
      else expect(made.filter((one) => !own.some((sha256) => one.includes(sha256)))).toEqual([])
      expect(await runOver(merged_model, kind)).toBeCloseTo(chosen.score, 6)

      // Not interrupted, it comes to the same; what a decoder says hangs on who is decoded beside it.
      if (of !== 'encoders') return
      const again = await ended(`${MERGES}/${(await ask(MERGES, { config })).id}`)
      expect(again.chosen).toEqual(chosen)
      expect(await told(again.id)).toEqual(candidates)
      const its = await ask(`/models/${encodeURIComponent(again.merged_model)}/provenance`)
      expect(its.statement.base.files).toEqual(statement.base.files)
    },
  )

  test.each(KINDS)('of %s, cancelled in the middle, leaves nothing', async (of) => {
    const kind = kinds[of]
    const before = await left(kind)
    const { id } = await ask(MERGES, { config: kind.config })
    const runs = `/evals/${kind.eval_id}/runs?limit=100`
    const during = await until(runs, ({ data }) => data.length > before.runs.length + 1)
    const { name, model } = during.data.at(-1)
    expect(name).toMatch(new RegExp(`^${id}, candidate \\d$`))
    // What it asks is nobody else's to name.
    expect((await send(`/models/${encodeURIComponent(model)}`)).status).toBe(404)
    // The first candidate is what was sent.
    expect((await told(id))[0]).toMatch(/weights 0\.000, 1\.000, score/)
    expect((await ask(`${MERGES}/${id}/cancel`, {})).status).toBe('cancelled')
    await expect.poll(() => left(kind), { timeout: 10_000 }).toEqual(before)
  })

  test.each(['adapters', 'decoders'] as const)(
    'of %s goes by the eval over a density too',
    async (of) => {
      const kind = kinds[of]
      const search = { eval: kind.eval_id, budget: 2, density: [0.2, 1] }
      const ties = { merge_method: 'ties', base_model: base, parameters: { density: 0.5 } }
      const pruned = of === 'adapters' ? { combination_type: 'ties_svd', density: 0.5 } : ties
      const { id } = await ask(MERGES, { config: { ...kind.config, ...pruned, search } })
      const { chosen } = await ended(`${MERGES}/${id}`)
      expect(chosen).toMatchObject({ density: expect.any(Number), score: expect.any(Number) })
      // The first candidate is what was sent.
      expect((await told(id))[0]).toMatch(/weights 0\.000, 1\.000, density 0\.500, score/)
    },
  )

  test('an eval that cannot be run to its end fails the merge, which leaves nothing', async () => {
    const kind = kinds.decoders
    const before = await left(kind)
    const { id } = await ask(MERGES, { config: kind.config })
    for (let canceled = false; !canceled; await sleep(50)) {
      const { data } = await ask(`/evals/${kind.eval_id}/runs?limit=100`)
      const run = data.at(-1)
      canceled =
        run.name.startsWith(id) && (await send(`/evals/${kind.eval_id}/runs/${run.id}`, {})).ok
    }
    const { error } = await until(`${MERGES}/${id}`, ({ status }) => status === 'failed')
    expect(error).toMatchObject({
      code: 'eval_failed',
      message: expect.stringMatching(
        /^Candidate \d of the search could not be evaluated: .*canceled/,
      ),
    })
    await expect.poll(() => left(kind), { timeout: 10_000 }).toEqual(before)
  })

  test('a candidate that cannot be merged fails the merge with its number, which leaves nothing', async () => {
    const kind = kinds.encoders
    const before = await left(kind)
    const models = ['plain', 'broken'].map((model) => ({ model, parameters: { weight: 1 } }))
    const { id } = await ask(MERGES, { config: { ...kind.config, models } })
    const { error } = await until(`${MERGES}/${id}`, ({ status }) => status === 'failed')
    expect(error).toMatchObject({
      code: 'merge_failed',
      message: expect.stringMatching(/Candidate 1 of the search: tensor classifier\.\S+: .*NaN/),
    })
    await expect.poll(() => left(kind), { timeout: 10_000 }).toEqual(before)
  })

  test('what an eval cannot ask is refused before any work, and what has no loss', async () => {
    const { eval_id } = kinds.encoders
    const alone = (model: string, search: object) => ({
      merge_method: 'linear',
      models: [{ model, parameters: { weight: 1 } }],
      search,
    })
    expect(await refusal(alone('vectors', { eval: eval_id }))).toMatchObject({
      param: 'search.eval',
      code: 'unsupported_value',
      message: expect.stringMatching(/gives vectors/),
    })
    expect(await refusal(alone('wordless', { eval: eval_id }))).toMatchObject({
      param: 'search.eval',
      message: expect.stringMatching(/no chat template/),
    })
    const rows = [{ prompt: 'a', completion: 'b' }]
    expect(await refusal(alone('plain', { validation_file: await upload(rows) }))).toMatchObject({
      param: 'search.validation_file',
      message: expect.stringMatching(/an encoder.*Search by 'search\.eval'/),
    })
    const letters = [...'bcdefghijklmnopq']
    const hyperparameters = { n_epochs: 1, batch_size: 8, lora: { rank: 2 } }
    const job = await ask('/fine_tuning/jobs', {
      model: 'vectors',
      training_file: await upload(letters.map((x) => ({ anchor: `a${x}`, positive: `${x}a` }))),
      method: { type: 'embedding', embedding: { hyperparameters } },
    })
    const adapter = await tuned(job.id)
    const config = { adapters: [adapter], weights: [1], search: { eval: eval_id } }
    expect(await refusal(config)).toMatchObject({
      param: 'search.eval',
      message: expect.stringMatching(/gives vectors/),
    })
  })
})
