// Moderations by a classifier that was named for them.

import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { suiteFolder } from '../../support/temporary.ts'
import { writeTinyEncoder } from '../../support/tiny-encoder.ts'

const folder = suiteFolder()
let api: TestApi
let bare: TestApi
beforeAll(async () => {
  const models = join(folder, 'models')
  await mkdir(models)
  const labels = ['none', 'hate', 'violence']
  await writeTinyEncoder(join(models, 'harm'), { labels })
  await writeTinyEncoder(join(models, 'harms'), {
    labels: ['hate', 'self-harm/intent', 'spam'],
    several: true,
  })
  await writeTinyEncoder(join(models, 'intents'))
  await writeTinyEncoder(join(models, 'vectors'), { head: false })
  api = await openTestApi({ models, moderationModel: 'harm' })
  bare = await openTestApi({ models })
})
afterAll(async () => {
  await api?.[Symbol.asyncDispose]()
  await bare?.[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

const texts = ['abc', 'zzz yy', 'hello . you', 'q!', 'mno pqr', 'the end']

test('one label a text: flagged if the most probable one is a category', async () => {
  const { status, body } = await api.post('/v1/moderations', { input: texts })
  expect(status).toBe(200)
  expect(body).toMatchObject({ id: expect.stringMatching(/^modr-/), model: 'harm' })
  const labels = await api.post('/v1/classifications', { model: 'harm', input: texts })
  expect(body.results).toHaveLength(texts.length)
  for (const [i, result] of body.results.entries()) {
    const { label, scores } = labels.body.data[i]
    expect(result.flagged).toBe(label !== 'none')
    expect(Object.keys(result.categories)).toHaveLength(13)
    for (const category of ['hate', 'violence']) {
      expect(result.categories[category]).toBe(label === category)
      expect(result.category_scores[category]).toBeCloseTo(scores[category], 6)
      expect(result.category_applied_input_types[category]).toEqual(['text'])
    }
    expect(result.category_scores.sexual).toBe(0)
    expect(result.category_applied_input_types.sexual).toEqual([])
    expect(result.categories).not.toHaveProperty('none')
  }
})

test('several labels: every category above one half; labels that are none count for nothing', async () => {
  const { body } = await api.post('/v1/moderations', { model: 'harms', input: texts })
  const labels = await api.post('/v1/classifications', { model: 'harms', input: texts })
  expect(body.model).toBe('harms')
  for (const [i, { categories, flagged }] of body.results.entries()) {
    const found = Object.keys(categories).filter((name) => categories[name])
    expect(found).toEqual(labels.body.data[i].labels.filter((label: string) => label !== 'spam'))
    expect(flagged).toBe(found.length > 0)
  }
})

test("OpenAI's names mean the server's own model, and parts are one text", async () => {
  const input = [
    { type: 'text', text: 'abc' },
    { type: 'text', text: 'zzz' },
  ]
  const body = { model: 'omni-moderation-latest', input }
  const parts = await api.post('/v1/moderations', body)
  expect(parts.body).toMatchObject({ model: 'harm' })
  const joined = await api.post('/v1/moderations', { input: 'abc\nzzz' })
  expect(parts.body.results).toEqual(joined.body.results)
})

test.each([
  ['no model anywhere', { input: 'a' }, 'model', /LUTHIER_MODERATION_MODEL/],
  [
    "OpenAI's model, without one of our own",
    { model: 'omni-moderation-latest', input: 'a' },
    'model',
    /LUTHIER_MODERATION_MODEL/,
  ],
  ['a model without a category', { model: 'intents', input: 'a' }, 'model', /LABEL_0, LABEL_1/],
  ['a model without labels', { model: 'vectors', input: 'a' }, 'model', /no labels/],
  ['an empty text', { model: 'harm', input: '' }, 'input', /too short/],
  [
    'an image',
    { model: 'harm', input: [{ type: 'image_url', image_url: { url: 'x' } }] },
    'input[0]',
    /text alone/,
  ],
  ['a mixture', { model: 'harm', input: ['a', { type: 'text', text: 'a' }] }, 'input', /one kind/],
])('refused: %s', async (_, body, param, message) => {
  const { status, body: reply } = await bare.post('/v1/moderations', body)
  expect([status, reply.error.param]).toEqual([400, param])
  expect(reply.error.message).toMatch(message)
})
