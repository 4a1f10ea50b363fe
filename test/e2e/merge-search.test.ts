// A merge of adapters whose weights an eval chooses, through the API of a real server: what it finds and says, killed in
// the middle, cancelled; and what it leaves behind, which is nothing.

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { type Reply, requestsTo } from '../support/requests.ts'
import { shared } from '../support/shared.ts'

const stories = shared('models/stories260k')
const base = 'stories260k'
const MERGES = '/fine_tuning/alpha/merges'
const RIGHT = 'Hello, little cat.'
const WRONG = 'Good night, big dog.'
const BUDGET = 5

describe.skipIf(stories.missing)('a merge whose weights an eval chooses', () => {
  let server: LuthierServer
  let right: string
  let wrong: string
  let eval_id: string
  let config: Record<string, unknown>

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
  const runOver = async (model: string): Promise<{ id: string; score: number }> => {
    const item = (i: number) => ({ question: `Animal ${100 + i} came`, answer: RIGHT })
    const source = {
      type: 'file_content',
      content: Array.from({ length: 8 }, (_, i) => ({ item: item(i) })),
    }
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
    return { id, score: scores.reduce((sum, x) => sum + x, 0) / scores.length }
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
  /** What a candidate could leave behind. */
  const left = async () => ({
    objects: (await server.stored()).toSorted(),
    runs: (await ask(`/evals/${eval_id}/runs?limit=100`)).data.map(({ id }: Reply) => id),
    models: (await ask('/models')).data.map(({ id }: Reply) => id),
    adapters: cached('adapters'),
    folders: cached('models'),
  })

  beforeAll(async () => {
    server = await startLuthier(makeHome({ [base]: stories.path }))
    const jobs = [await startTuning(RIGHT), await startTuning(WRONG)]
    const criterion = {
      type: 'text_similarity',
      name: 'alike',
      input: '{{sample.output_text}}',
      reference: '{{item.answer}}',
      evaluation_metric: 'fuzzy_match',
      pass_threshold: 0.9,
    }
    const data_source_config = { type: 'custom', item_schema: { type: 'object' } }
    const request = { name: 'says hello', data_source_config, testing_criteria: [criterion] }
    eval_id = (await ask('/evals', request)).id
    ;[right, wrong] = [await tuned(jobs[0]!), await tuned(jobs[1]!)]
    config = {
      adapters: [right, wrong],
      // The worse end is where the search begins.
      weights: [0, 1],
      combination_type: 'cat',
      random_seed: 1,
      search: { eval: eval_id, budget: BUDGET },
    }
  }, 120_000)
  afterAll(() => server?.[Symbol.asyncDispose]())

  test('needs an eval, of adapters, with something to run on', async () => {
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
    const models = [base, right].map((model) => ({ model, parameters: { weight: 1 } }))
    expect(
      await refusal({ merge_method: 'linear', models, search: { eval: eval_id } }),
    ).toMatchObject({
      param: 'search.eval',
      message: expect.stringMatching(/searched by 'search\.validation_file'/),
    })
  })

  test('killed in the middle, it finds what is as good as the better one, says so, and leaves nothing', async () => {
    const ends = [await runOver(right), await runOver(wrong)]
    expect(ends[0]!.score).toBeGreaterThan(ends[1]!.score + 0.3)
    const before = await left()

    const { id } = await ask(MERGES, { config })
    await until(`${MERGES}/${id}`, (merge) => (merge.chosen?.candidate ?? 0) >= 2)
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
    expect(scores[0]).toBeCloseTo(ends[1]!.score, 3)
    const best = Math.max(...scores)
    expect(best).toBeGreaterThan(scores[0]! + 0.3)
    expect(candidates[scores.indexOf(best)]).toMatch(/, the best$/)
    expect(chosen).toMatchObject({ candidate: scores.indexOf(best) + 1, budget: BUDGET })
    expect(chosen.score).toBeCloseTo(best, 3)
    expect(chosen.score).toBeGreaterThanOrEqual(ends[0]!.score)
    const name = encodeURIComponent(merged_model)
    const { statement } = await ask(`/models/${name}/provenance`)
    expect(statement.merge.chosen).toEqual(chosen)
    const tar = await (await send(`/models/${name}/weights?format=peft`)).arrayBuffer()
    expect(Buffer.from(tar).toString('latin1')).toContain(
      `candidate ${chosen.candidate} of ${BUDGET}: weights ${chosen.weights.join(', ')}, score ${chosen.score}`,
    )

    // Only the model itself is there, and what it is worth is what was said of its candidate.
    const after = await left()
    const made = after.models.filter((one: string) => !before.models.includes(one))
    expect(made).toEqual([merged_model])
    expect(after.runs).toEqual(before.runs)
    expect(after.folders).toEqual(before.folders)
    expect(after.objects).toHaveLength(before.objects.length + 2)
    expect(after.adapters).toHaveLength(before.adapters.length + 1)
    expect((await runOver(merged_model)).score).toBeCloseTo(chosen.score, 6)
  })

  test('cancelled in the middle, it leaves nothing', async () => {
    const before = await left()
    const pruned = { ...config, combination_type: 'ties_svd', density: 0.5 }
    const search = { eval: eval_id, density: [0.2, 1] }
    const { id } = await ask(MERGES, { config: { ...pruned, search } })
    const runs = `/evals/${eval_id}/runs?limit=100`
    const during = await until(runs, ({ data }) => data.length > before.runs.length + 1)
    const { name, model } = during.data.at(-1)
    expect(name).toMatch(new RegExp(`^${id}, candidate \\d$`))
    // What it asks is nobody else's to name.
    expect((await send(`/models/${encodeURIComponent(model)}`)).status).toBe(404)
    // The first candidate is what was sent.
    expect((await told(id))[0]).toMatch(/weights 0\.000, 1\.000, density 0\.500, score/)
    expect((await ask(`${MERGES}/${id}/cancel`, {})).status).toBe('cancelled')
    await expect.poll(left, { timeout: 10_000 }).toEqual(before)
  })

  test('an eval that cannot be run to its end fails the merge, which leaves nothing', async () => {
    const before = await left()
    const { id } = await ask(MERGES, { config })
    for (let canceled = false; !canceled; await sleep(50)) {
      const { data } = await ask(`/evals/${eval_id}/runs?limit=100`)
      const run = data.at(-1)
      canceled = run.name.startsWith(id) && (await send(`/evals/${eval_id}/runs/${run.id}`, {})).ok
    }
    const { error } = await until(`${MERGES}/${id}`, ({ status }) => status === 'failed')
    expect(error).toMatchObject({
      code: 'eval_failed',
      message: expect.stringMatching(
        /^Candidate \d of the search could not be evaluated: .*canceled/,
      ),
    })
    await expect.poll(left, { timeout: 10_000 }).toEqual(before)
  })
})
