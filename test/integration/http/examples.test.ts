// The ledger of a job through the API: planted wrong labels come first, and a file without them is derived.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { uniform } from '../../../src/engine/random.ts'
import { startTraining } from '../../../src/service/scheduler/training.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { testLog } from '../../support/log.ts'
import { shared } from '../../support/shared.ts'

const stories = shared('models/stories260k')
const banking = shared('data/banking77')
const INTENTS = [
  'card_arrival',
  'exchange_rate',
  'lost_or_stolen_card',
  'top_up_failed',
  'age_limit',
]

interface Row {
  id: string
  line: number
  score: number
  losses: number[]
  row: { prompt: string }
}

describe.skipIf(stories.missing || banking.missing)('the ledger', () => {
  let service: TestApi
  let url = ''
  let training_file = ''
  let lines: string[] = []
  const flipped = new Set<number>()

  beforeAll(async () => {
    service = await openTestApi({ models: join(stories.path, '..') })
    const csv = (await readFile(join(banking.path, 'train.csv'), 'utf8')).split('\n').slice(1)
    const questions = INTENTS.flatMap((intent) =>
      csv
        .filter((line) => line.trim().endsWith(`,${intent}`))
        .slice(0, 60)
        .map((line) => ({ text: line.trim().slice(0, -intent.length - 1), intent })),
    )
    lines = questions.map(({ text, intent }, i) => {
      if (uniform(4, 0, i) >= 0.05) return row(text, intent)
      flipped.add(i + 1)
      const others = INTENTS.filter((other) => other !== intent)
      return row(text, others[Math.floor(uniform(4, 1, i) * others.length)]!)
    })
    training_file = await service.upload(`${lines.join('\n')}\n`)
    await using _ = startTraining({
      stores: service.stores,
      models: service.models,
      cache: join(service.folder, 'weights'),
      precision: 'fp32',
      log: testLog,
      adapterFile: service.adapterFile,
      serving: service.serving,
      pool: service.pool,
      compute: { device: 'cpu', threads: 1 },
      folders: [],
      poll_seconds: 0.2,
    })
    const hyperparameters = { n_epochs: 4, batch_size: 8, learning_rate: 2e-3, adapter: 'none' }
    const { body } = await service.post('/v1/fine_tuning/jobs', {
      model: 'stories260k',
      training_file,
      seed: 1,
      method: { type: 'supervised', supervised: { hyperparameters } },
    })
    const job = `/v1/fine_tuning/jobs/${body.id}`
    url = `${job}/examples`
    for (let status = ''; status !== 'succeeded'; await sleep(100)) {
      status = (await service.get(job)).body.status
      if (status === 'failed') throw new Error(JSON.stringify((await service.get(job)).body.error))
    }
  }, 60_000)
  afterAll(() => service?.[Symbol.asyncDispose]())

  const row = (text: string, intent: string) =>
    JSON.stringify({ prompt: `${text} Intent:`, completion: ` ${intent.replaceAll('_', ' ')}` })

  /** The whole list, page by page. */
  async function all(order?: string): Promise<Row[]> {
    const rows: Row[] = []
    for (let after = ''; ; ) {
      const query = new URLSearchParams({
        limit: '100',
        ...(order && { order }),
        ...(after && { after }),
      })
      const { status, body } = await service.get(`${url}?${query}`)
      expect(status).toBe(200)
      rows.push(...body.data)
      if (!body.has_more) return rows
      after = body.last_id
    }
  }

  test('shows planted wrong labels in its top tenth', async () => {
    const rows = await all()
    expect(rows.map(({ line }) => line).toSorted((a, b) => a - b)).toEqual(
      lines.map((_, i) => i + 1),
    )
    const found = rows.slice(0, rows.length / 10).filter(({ line }) => flipped.has(line))
    expect(found.length / flipped.size).toBeGreaterThanOrEqual(0.8)
    for (const { line, row, losses } of rows) {
      expect(row).toEqual(JSON.parse(lines[line - 1]!))
      expect(losses).toHaveLength(4)
    }
    // Its score is the share of rows that did better, a mean over the epochs but the first by their losses.
    const later = [1, 2, 3].map((epoch) => rows.map(({ losses }) => losses[epoch]!))
    const sum = (xs: number[]) => xs.reduce((a, b) => a + b)
    const weights = later.map(sum)
    for (const [at, { score }] of rows.entries()) {
      const better = later.map((losses) => losses.filter((loss) => loss < losses[at]!).length)
      const share = sum(better.map((count, i) => (weights[i]! * count) / rows.length))
      expect(score).toBeCloseTo(share / sum(weights), 3)
    }
    expect(rows.map(({ score }) => score)).toEqual(
      rows.map(({ score }) => score).toSorted((a, b) => b - a),
    )
  })

  test.each(['never_learned', 'forgotten', 'loss'])('orders by %s', async (order) => {
    const rows = await all(order)
    expect(rows).toHaveLength(lines.length)
    const scores = rows.map(({ score }) => score)
    expect(scores).toEqual(scores.toSorted((a, b) => b - a))
    const [first] = rows
    const { losses } = first!
    if (order === 'loss') expect(first!.score).toBe(losses.at(-1))
    if (order === 'never_learned') expect(first!.score).toBe(Math.min(...losses))
    if (order === 'forgotten') {
      const rises = losses.flatMap((low, i) => losses.slice(i).map((loss) => loss - low))
      expect(first!.score).toBe(Math.max(...rises))
      expect(first!.score).toBeGreaterThan(0)
    }
  })

  test('gives a file without the chosen rows, which names its parent', async () => {
    const topBy = async (order: string) => (await all(order)).slice(0, 3).map(({ line }) => line)
    const top = await topBy('forgotten')
    for (const order of ['likely_wrong_label', 'never_learned', 'loss'])
      expect((await topBy(order)).toSorted()).not.toEqual(top.toSorted())
    const made = await service.post(`${url}/derive`, {
      top: { order: 'forgotten', count: 3 },
      filename: 'cleaner.jsonl',
    })
    const job_id = url.split('/').at(-2)
    const parent = { file_id: training_file, job_id, removed_rows: 3 }
    expect(made).toMatchObject({
      status: 200,
      body: { filename: 'cleaner.jsonl', purpose: 'fine-tune', parent },
    })
    expect((await service.get(`/v1/files/${made.body.id}`)).body.parent).toEqual(parent)
    expect((await service.get(`/v1/files/${training_file}`)).body).not.toHaveProperty('parent')
    const content = async (id: string) => {
      const headers = { authorization: `Bearer ${service.key}` }
      return (await service.app.inject({ url: `/v1/files/${id}/content`, headers })).body
    }
    const rest = lines.filter((_, i) => !top.includes(i + 1))
    expect(await content(made.body.id)).toBe(`${rest.join('\n')}\n`)
    const other = await service.post(`${url}/derive`, { lines: [2] })
    expect(await content(other.body.id)).toBe(`${lines.toSpliced(1, 1).join('\n')}\n`)
    expect(other.body.filename).toBe('rows-derived.jsonl')
  })

  test.each<[string, object, string]>([
    ['no choice', {}, 'lines'],
    ['two choices', { lines: [1], top: { order: 'loss', count: 1 } }, 'lines'],
    ['a line that is no row', { lines: [301] }, 'lines'],
    ['an unknown order', { top: { order: 'best', count: 1 } }, 'top.order'],
  ])('refuses %s', async (_, body, param) => {
    const reply = await service.post(`${url}/derive`, body)
    expect([reply.status, reply.body.error.param]).toEqual([400, param])
  })

  test('refuses an unknown cursor, and says when there is no file any more', async () => {
    expect((await service.get(`${url}?after=line-301`)).status).toBe(400)
    await service.delete(`/v1/files/${training_file}`)
    expect((await all()).every(({ row }) => row === null)).toBe(true)
    const { body } = await service.post(`${url}/derive`, { lines: [1] })
    expect(body.error.code).toBe('training_file_deleted')
  })
})
