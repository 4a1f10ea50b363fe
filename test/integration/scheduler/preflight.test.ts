// A preflight by itself and as part of a job, through HTTP, on a model of two layers.

import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startTraining } from '../../../src/service/scheduler/training.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { testLog } from '../../support/log.ts'
import { writeTinyEncoder } from '../../support/tiny-encoder.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

let service: TestApi
let models = ''
let training: AsyncDisposable
beforeAll(async () => {
  models = await mkdtemp(join(tmpdir(), 'luthier-models-'))
  await mkdir(join(models, 'tiny'))
  await writeTinyModel(join(models, 'tiny'))
  service = await openTestApi({ models })
  training = startTraining({
    stores: service.stores,
    models: service.models,
    cache: join(service.folder, 'weights'),
    precision: 'fp32',
    log: testLog,
    adapterFile: service.adapterFile,
    serving: service.serving,
    pool: service.pool,
    compute: { device: 'cpu', threads: 1 },
    folders: [models],
    poll_seconds: 0.2,
  })
})
afterAll(async () => {
  await training?.[Symbol.asyncDispose]()
  await service?.[Symbol.asyncDispose]()
  await rm(models, { recursive: true, force: true })
})

const WORDS = 'where is my new card and when will it come to the house of an old friend'.split(' ')
/** Rows of ten words, no two alike. */
const rows = (count: number, seed = 1): object[] =>
  Array.from({ length: count }, (_, i) => ({
    prompt: Array.from(
      { length: 10 },
      (_, k) => `${WORDS[(i * seed + k * 3) % 17]}${(i * 7 + k * k * seed) % 41}`,
    ).join(' '),
    completion: i % 3 ? ' yes' : ' no',
    metadata: { channel: i % 2 ? 'mail' : 'phone' },
  }))
const upload = (list: readonly object[]) =>
  service.upload(`${list.map((row) => JSON.stringify(row)).join('\n')}\n`)
const method = {
  type: 'supervised',
  supervised: { hyperparameters: { n_epochs: 1, batch_size: 8 } },
}
const preflight = (body: object) =>
  service.post('/v1/fine_tuning/alpha/preflight', { model: 'tiny', method, ...body })

async function ended(body: object) {
  const { body: created } = await service.post('/v1/fine_tuning/jobs', {
    model: 'tiny',
    method,
    ...body,
  })
  const path = `/v1/fine_tuning/jobs/${created.id}`
  for (let waited = 0; waited < 60_000; waited += 50) {
    const { body: job } = await service.get(path)
    if (['succeeded', 'failed'].includes(job.status)) return { job, path }
    await sleep(50)
  }
  throw new Error('The job did not end.')
}

test('a preflight tells what is wrong with the files and leaves nothing behind', async () => {
  const list = rows(30)
  const training_file = await upload([...list, list[3]!, { ...list[4], completion: ' maybe' }])
  const validation_file = await upload([...rows(5, 5), list[7]!])
  const before = await service.db.query('select count(*) from work')
  const { status, body } = await preflight({
    training_file,
    validation_file,
    luthier: { data: { groups: ['channel'] } },
  })
  expect(status).toBe(200)
  expect(body).toMatchObject({
    object: 'fine_tuning.preflight',
    ok: true,
    duplicates: { clusters: 1, rows: 1, largest: [{ lines: [4, 31], outputs: 1 }] },
    contradictions: { clusters: 1, largest: [{ lines: [5, 32], outputs: 2 }] },
    leakage: { exact: { rows: 1, first: [{ line: 6, training_line: 8 }] }, near: { rows: 0 } },
    groups: [{ field: 'channel', values: 2, missing: 0 }],
    forecast: { steps: 4, epochs: 1, batch_size: 8 },
    overfit_risk: { rows: 32, trainable_parameters: expect.any(Number) },
  })
  const { memory_bytes, step_seconds, seconds } = body.forecast
  expect(memory_bytes).toBeGreaterThan(1e8)
  expect(step_seconds).toBeGreaterThan(0)
  // Four steps, and validation.
  expect(seconds).toBeGreaterThan(4 * step_seconds)
  expect(body.text).toMatch(/Forecast: 4 steps over 1 epoch\(s\), about \d\.\d GB, about \d+ s\./)
  const [shown] = body.training.shown
  expect(shown.tokens.map(({ text }: { text: string }) => text).join('')).toContain('where')
  expect(shown.tokens.at(-1)).toMatchObject({ trained: true })
  expect(shown.tokens[1]).toMatchObject({ trained: false })
  expect(body.text).toContain('WARNING leakage: 1 row(s) of the validation file')
  expect((await service.db.query('select count(*) from work')).rows).toEqual(before.rows)
})

test('bad rows, a reference of another format and rows without a group are errors that say where', async () => {
  const list = rows(20)
  const training_file = await upload([...list, { prompt: 'x' }, { prompt: 'x', completion: 'y' }])
  const reference_file = await service.upload('{"text":"fine"}\n{"colour":"red"}\n', {
    purpose: 'user_data',
  })
  const { body } = await preflight({
    training_file,
    luthier: { data: { groups: ['channel'], reference_file } },
  })
  expect(body.ok).toBe(false)
  const named = (name: string) =>
    body.findings.find((finding: { name: string }) => finding.name === name)
  expect(named('missing_groups')).toMatchObject({ level: 'error', param: 'luthier.data.groups[0]' })
  expect(named('invalid_reference_file').message).toContain('Line 2')
  expect(body.errors).toContainEqual({
    param: 'training_file',
    line: 21,
    pointer: '',
    check: 'missing_completion',
    message: "is missing the key 'completion'",
  })
  expect(await service.get('/v1/models')).toMatchObject({ status: 200 })
})

test('strict stops a job with leaked rows; without it the job trains, and keeps the report', async () => {
  const list = rows(24)
  const files = { training_file: await upload(list), validation_file: await upload([list[2]!]) }
  const strict = await ended({ ...files, luthier: { data: { strict: ['leakage'] } } })
  expect(strict.job).toMatchObject({
    status: 'failed',
    error: { code: 'preflight_leakage', param: 'validation_file' },
  })
  const loose = await ended(files)
  expect(loose.job.status).toBe('succeeded')
  const { body: report } = await service.get(`${loose.path}/preflight`)
  expect(report).toMatchObject({ object: 'fine_tuning.preflight', leakage: { exact: { rows: 1 } } })
  const { body: events } = await service.get(`${loose.path}/events?limit=100`)
  const told = events.data.filter(
    (event: { data: { kind?: string } }) => event.data.kind === 'preflight',
  )
  expect(told).toHaveLength(1)
  expect(told[0]).toMatchObject({ level: 'warn', data: { text: report.text } })
})

test('a split of the training file validates on rows that are not learned', async () => {
  const training_file = await upload(rows(40))
  const { job, path } = await ended({
    training_file,
    luthier: { data: { validation_split: 0.25 } },
  })
  expect(job.status).toBe('succeeded')
  const { body: report } = await service.get(`${path}/preflight`)
  expect(report).toMatchObject({
    held_back: { rows: 10 },
    training: { examples: 30 },
    validation: { examples: 10 },
    forecast: { steps: 4 },
  })
  const { body: checkpoints } = await service.get(`${path}/checkpoints`)
  expect(checkpoints.data[0].metrics.full_valid_loss).toBeGreaterThan(0)
})

test('what training lacks of the reference is found by words, and by an encoder once one is installed', async () => {
  // Words of the same letters in other orders; of the reference half is written in letters that training never has.
  const text = (i: number, letters: string) =>
    Array.from({ length: 5 }, (_, word) =>
      Array.from({ length: 4 }, (_, k) => letters[(i * 7 + word * 5 + k * k + i * k) % 8]).join(''),
    ).join(' ')
  const prompts = (from: number, count: number, letters: string) =>
    Array.from({ length: count }, (_, i) => ({ prompt: text(from + i, letters), completion: 'x' }))
  const training_file = await upload(prompts(0, 80, 'abcdefgh'))
  const reference_file = await service.upload(
    [...prompts(80, 40, 'abcdefgh'), ...prompts(0, 40, 'stuvwxyz')]
      .map(({ prompt }) => `${JSON.stringify({ prompt })}\n`)
      .join(''),
    { purpose: 'user_data' },
  )
  const asked = { training_file, luthier: { data: { reference_file } } }
  const { body: words } = await preflight(asked)
  expect(words.representativeness.features).toMatch(/^words and pairs of words/)

  await writeTinyEncoder(join(models, 'reader'), { head: false })
  // A scan of the folder holds for two seconds.
  await sleep(2100)
  const { body: vectors } = await preflight(asked)
  const { features, auc, interval, unlike } = vectors.representativeness
  expect(features).toBe('vectors of reader, kernel density')
  // Its weights are random: a trained one's figures are in docs/curation.md.
  expect(auc).toBeGreaterThan(0.6)
  expect(interval[0]).toBeGreaterThan(0.5)
  const missing = unlike.filter(({ line }: { line: number }) => line > 40)
  expect(missing.length / unlike.length).toBeGreaterThanOrEqual(0.8)
  for (const { nearest } of unlike) expect(nearest.line).toBeLessThanOrEqual(80)
  expect(vectors.findings).toContainEqual(
    expect.objectContaining({ name: 'unrepresentative', level: 'warn' }),
  )
  const { job } = await ended({
    training_file,
    luthier: { data: { reference_file, strict: ['unrepresentative'] } },
  })
  expect(job).toMatchObject({
    status: 'failed',
    error: { code: 'preflight_unrepresentative', param: 'luthier.data.reference_file' },
  })
})
