// A preflight by itself and as part of a job, through HTTP, on a model of two layers.

import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startTraining } from '../../../src/service/scheduler/training.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { testLog } from '../../support/log.ts'
import { writeTinyEncoder } from '../../support/tiny-encoder.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'
import {
  banking77,
  type Intent,
  readIntents,
  shuffled,
} from '../../unit/engine/curate/banking77.ts'

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
  const training_file = await upload([
    ...list,
    { prompt: 'x' },
    { prompt: 'x', completion: 'y' },
    { prompt: 'x', completion: 5 },
  ])
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
  const where = { param: 'training_file', line: 23, pointer: '/completion' }
  expect(body.errors).toContainEqual(expect.objectContaining({ ...where, check: 'data_type' }))
  expect(body.text).toContain('training_file, line 23 (/completion): ')
  expect(await service.get('/v1/models')).toMatchObject({ status: 200 })
})

test('strict stops a job with leaked rows; where it names others the job trains, and keeps the report', async () => {
  const list = rows(24)
  const files = { training_file: await upload(list), validation_file: await upload([list[2]!]) }
  const strict = await ended({ ...files, luthier: { data: { strict: ['leakage'] } } })
  expect(strict.job).toMatchObject({
    status: 'failed',
    error: { code: 'preflight_leakage', param: 'validation_file' },
  })
  const loose = await ended({ ...files, luthier: { data: { strict: ['contradictions'] } } })
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
  const list = rows(40)
  const { job, path } = await ended({
    training_file: await upload(list),
    seed: 1,
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

  // To the last digit what comes of the same rows as two files.
  const { lines } = report.held_back
  const files = [false, true].map((held) =>
    upload(list.filter((_, i) => lines.includes(i + 1) === held)),
  )
  const [training_file, validation_file] = await Promise.all(files)
  const apart = await ended({ training_file, validation_file, seed: 1 })
  expect(apart.job.trained_tokens).toBe(job.trained_tokens)
  const { body: others } = await service.get(`${apart.path}/checkpoints`)
  expect(others.data[0].metrics).toEqual(checkpoints.data[0].metrics)
})

test('tokens are counted, three rows are shown token by token, and of one that is too long what is cut', async () => {
  // A byte is a token; the end of the sequence is one more.
  const list = Array.from({ length: 20 }, (_, i) => ({
    prompt: 'a'.repeat(5 + i),
    completion: ' yes',
  }))
  const training_file = await upload([
    ...list,
    { prompt: 'b'.repeat(30), completion: 'c'.repeat(20) },
  ])
  const { body } = await preflight({
    training_file,
    method: {
      type: 'supervised',
      supervised: { hyperparameters: { n_epochs: 1, batch_size: 8, max_sequence_length: 40 } },
    },
  })
  const { training } = body
  expect(training.row_tokens).toMatchObject({ min: 10, p50: 20, p90: 28, max: 40 })
  expect(training.row_trained_tokens).toMatchObject({ min: 5, p50: 5, max: 10 })
  expect(training.over_length).toEqual([{ line: 21, tokens: 51, cut: 11, cut_trained: 11 }])
  const sum = Array.from({ length: 20 }, (_, i) => 10 + i).reduce((a, b) => a + b)
  expect([training.tokens, training.trained_tokens]).toEqual([sum + 40, 20 * 5 + 10])
  expect(training.shown.map(({ line }: { line: number }) => line)).toEqual([1, 2, 21])
  for (const { line, tokens } of training.shown) {
    const taught = tokens.filter(({ trained }: { trained: boolean }) => trained)
    const said = taught.map(({ text }: { text: string }) => text).join('')
    expect(said).toBe(line === 21 ? 'c'.repeat(10) : ' yes</s>')
  }
  expect(body.findings).toContainEqual(
    expect.objectContaining({ name: 'truncated_rows', level: 'warn' }),
  )
})

test('near-duplicates, near leaks, labels, groups and the risk are told; strict: true makes errors of them', async () => {
  const list = rows(40) as { prompt: string; completion: string; metadata: object }[]
  const edited = (i: number) => ({
    ...list[i]!,
    prompt: list[i]!.prompt.replace(/\w+$/, 'elsewhere').toUpperCase(),
  })
  const odd = { ...rows(1, 9)[0], completion: ' maybe', metadata: { channel: 'fax' } }
  const training_file = await upload([...list, edited(3), odd])
  const validation_file = await upload([...rows(5, 5), edited(8)])
  const body = { training_file, validation_file, luthier: { data: { groups: ['channel'] } } }
  const { body: report } = await preflight(body)
  expect(report).toMatchObject({
    ok: true,
    near_duplicates: { clusters: 1, rows: 1, largest: [{ lines: [4, 41] }] },
    leakage: { exact: { rows: 0 }, near: { rows: 1, first: [{ line: 6, training_line: 9 }] } },
    balance: {
      kind: 'labels',
      distinct: 3,
      most: [{ output: ' yes', rows: 26 }, { output: ' no', rows: 15 }, { rows: 1 }],
      rare: [{ output: ' maybe', rows: 1 }],
    },
    overfit_risk: { level: 'medium', rows: 42, epochs: 1 },
  })
  const [{ groups }] = report.groups
  expect(groups).toEqual([
    expect.objectContaining({ value: 'mail', rows: 21, too_small: false }),
    expect.objectContaining({ value: 'phone', rows: 20, too_small: false }),
    expect.objectContaining({
      value: 'fax',
      rows: 1,
      too_small: true,
      output_rates: { ' maybe': 1 },
    }),
  ])
  expect(groups[0].output_rates[' yes']).toBeCloseTo(13 / 21, 3)
  expect(report.overfit_risk.reasons).toContain('only 42 rows')
  const named = report.findings.map(({ name }: { name: string }) => name)
  expect(named).toEqual(
    expect.arrayContaining(['near_duplicates', 'near_leakage', 'rare_labels', 'small_groups']),
  )
  const { body: strict } = await preflight({
    ...body,
    luthier: { data: { groups: ['channel'], strict: true } },
  })
  expect(strict.ok).toBe(false)
  const warned = report.findings.filter(({ level }: { level: string }) => level === 'warn')
  expect(strict.findings.filter(({ level }: { level: string }) => level === 'error')).toEqual(
    warned.map((finding: object) => ({ ...finding, level: 'error' })),
  )
  const { job } = await ended({ ...body, luthier: { data: { strict: true } } })
  expect([job.status, job.error.code]).toEqual(['failed', 'preflight_near_duplicates'])
})

test('a split holds back the same rows in whatever order they come, and near-duplicates together', async () => {
  const list = rows(60) as { prompt: string }[]
  // Each of them twice, but for one word.
  const all = [...list, ...list.map((row) => ({ ...row, prompt: `${row.prompt} too` }))]
  const held = async (order: readonly { prompt: string }[]) => {
    const { body } = await preflight({
      training_file: await upload(order),
      luthier: { data: { validation_split: 0.2 } },
    })
    return body.held_back.lines.map((line: number) => order[line - 1]!.prompt).toSorted()
  }
  const first = await held(all)
  expect(first).toHaveLength(24)
  expect(first.filter((prompt: string) => !prompt.endsWith(' too')).length).toBe(12)
  for (const prompt of first.filter((each: string) => !each.endsWith(' too')))
    expect(first).toContain(`${prompt} too`)
  expect(await held(all.toReversed())).toEqual(first)
})

test('what auto becomes is told with its reasons', async () => {
  const { job, path } = await ended({ training_file: await upload(rows(16)), method: undefined })
  expect(job).toMatchObject({
    status: 'succeeded',
    hyperparameters: { n_epochs: 7, batch_size: 4 },
  })
  const { body: events } = await service.get(`${path}/events?limit=100`)
  const plan = events.data.find(({ data }: { data: { kind?: string } }) => data.kind === 'plan')
  expect(plan.message).toMatch(/^Training plan: 7 epoch\(s\), batch size 4, .* 28 steps$/)
  const { reasons } = plan.data
  for (const reason of [
    'n_epochs 7: 16 examples, seen 100 to 25,000 times in all',
    'batch_size 4: 4 updates an epoch',
    expect.stringMatching(/^learning_rate_multiplier 1: the base rate /),
    expect.stringMatching(/^rank 8: \d+ parameters for \d+ tokens to learn$/),
  ])
    expect(reasons).toContainEqual(reason)
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
  const expectMeasured = ({ auc, interval }: { auc: number; interval: [number, number] }) => {
    expect(auc).toBeGreaterThan(0.6)
    expect(interval[0]).toBeLessThan(auc)
    expect(interval[1]).toBeGreaterThan(auc)
    expect(interval[1] - interval[0]).toBeLessThan(0.4)
  }
  const { body: words } = await preflight(asked)
  expect(words.representativeness.features).toMatch(/^words and pairs of words/)
  expectMeasured(words.representativeness)

  await writeTinyEncoder(join(models, 'reader'), { head: false })
  // A scan of the folder holds for two seconds.
  await sleep(2100)
  const { body: vectors } = await preflight(asked)
  const { features, interval, unlike } = vectors.representativeness
  expect(features).toBe('vectors of reader, kernel density and groups')
  // Its weights are random: a trained one's figures are in docs/curation.md.
  expectMeasured(vectors.representativeness)
  expect(interval[0]).toBeGreaterThan(0.5)
  expect(interval[1]).toBeLessThan(1)
  const missing = unlike.filter(({ line }: { line: number }) => line > 40)
  expect(missing.length / unlike.length).toBeGreaterThanOrEqual(0.8)
  for (const { nearest } of unlike) expect(nearest.line).toBeLessThanOrEqual(80)
  expect(vectors.findings).toContainEqual(
    expect.objectContaining({ name: 'unrepresentative', level: 'warn' }),
  )
  const { job, path } = await ended({
    training_file,
    luthier: { data: { reference_file, strict: ['unrepresentative'] } },
  })
  const { body: events } = await service.get(`${path}/events?limit=100`)
  const stages = events.data.flatMap(({ data }: { data: { kind?: string; stage?: string } }) =>
    data.kind === 'preflight_progress' ? [data.stage] : [],
  )
  expect(stages).toContain('comparing with the reference file')
  expect(job).toMatchObject({
    status: 'failed',
    error: { code: 'preflight_unrepresentative', param: 'luthier.data.reference_file' },
  })
})

describe.skipIf(banking77.missing)('faults planted in banking77', () => {
  /** One word replaced, two swapped, or punctuation and case changed. */
  const edited = ({ text, label }: Intent, i: number): Intent => {
    const words = text.split(' ')
    const at = (i * 7) % (words.length - 1)
    if (i % 3 === 0) words[at] = 'perhaps'
    else if (i % 3 === 1) [words[at], words[at + 1]] = [words[at + 1]!, words[at]!]
    return { label, text: i % 3 === 2 ? `${words.join(' ').toUpperCase()} !!` : words.join(' ') }
  }

  test('duplicates, edited duplicates and leaked rows are counted, beside those that it has of its own', async () => {
    const intents = shuffled(readIntents(), 1)
    const rows = intents.slice(0, 1500)
    const long = rows.filter(({ text }) => text.split(' ').length >= 8)
    const written = (list: readonly Intent[]) =>
      upload(list.map(({ text, label }) => ({ prompt: text, completion: ` ${label}` })))
    const clean = intents.slice(1500, 1700)
    const { body: before } = await preflight({
      training_file: await written(rows),
      validation_file: await written(clean),
    })
    const planted = [...rows, ...long.slice(0, 100), ...long.slice(100, 200).map(edited)]
    const { body: after } = await preflight({
      training_file: await written(planted),
      validation_file: await written([...clean, ...long.slice(200, 220)]),
    })
    expect(after.duplicates.rows - before.duplicates.rows).toBe(100)
    const near = after.near_duplicates.rows - before.near_duplicates.rows
    expect(near).toBeGreaterThanOrEqual(95)
    expect(near).toBeLessThanOrEqual(200)
    expect(after.leakage.exact.rows - before.leakage.exact.rows).toBe(20)
  })
})
