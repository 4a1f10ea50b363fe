// Answers held to a schema, end to end: the official client, a listening server, a real model at temperature 1.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type InferenceServer, startInferenceServer } from '../../support/inference-server.ts'
import { shared } from '../../support/shared.ts'

const stories = shared('models/stories260k')
const model = 'stories-chat'
const messages = [{ role: 'user' as const, content: 'Once upon a time' }]

describe.skipIf(stories.missing)('structured output', () => {
  let folder: string
  let server: InferenceServer
  let client: OpenAI

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'luthier-structured-'))
    server = await startInferenceServer(stories.path, folder)
    client = server.client
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  const format = (schema: Record<string, unknown>) => ({
    type: 'json_schema' as const,
    json_schema: { name: 'answer', strict: true, schema },
  })

  const schema = {
    type: 'object',
    properties: {
      kind: { enum: ['cat', 'dog', 7] },
      code: { type: 'string', pattern: '^[A-Z]{2}.-[^a-c]\\d$' },
      ages: { type: 'array', items: { type: 'integer', minimum: 3, maximum: 40 }, maxItems: 3 },
      next: { anyOf: [{ $ref: '#/$defs/end' }, { type: 'null' }] },
    },
    required: ['kind', 'code', 'ages', 'next'],
    additionalProperties: false,
    $defs: {
      end: {
        type: 'object',
        properties: { ok: { type: 'boolean' } },
        required: ['ok'],
        additionalProperties: false,
      },
    },
  }

  test('every answer that ends validates, and each choice draws its own', async () => {
    const validate = new Ajv({ strict: false }).compile(schema)
    const { choices } = await client.chat.completions.create({
      model,
      messages,
      n: 8,
      seed: 1,
      max_tokens: 150,
      response_format: format(schema),
    })
    const ended = choices.filter(({ finish_reason }) => finish_reason === 'stop')
    expect(ended.length).toBeGreaterThanOrEqual(6)
    for (const { message } of ended) {
      expect(validate(JSON.parse(message.content ?? '')), message.content ?? '').toBe(true)
    }
    expect(new Set(choices.map(({ message }) => message.content)).size).toBeGreaterThan(1)
  })

  test("a stream assembled by the client's helper parses; one that is cut off says length", async () => {
    const stream = client.chat.completions.stream({
      model,
      messages,
      seed: 2,
      max_tokens: 150,
      response_format: format({
        type: 'object',
        properties: { ok: { type: 'boolean' } },
        required: ['ok'],
        additionalProperties: false,
      }),
    })
    const final = await stream.finalChatCompletion()
    expect(JSON.parse(final.choices[0]?.message.content ?? '')).toEqual({
      ok: expect.any(Boolean),
    })
    const cut = await client.chat.completions.create({
      model,
      messages,
      max_tokens: 3,
      response_format: format(schema),
    })
    expect(cut.choices[0]?.finish_reason).toBe('length')
    expect(cut.choices[0]?.message.content).toMatch(/^\{/)
  })

  test('a JSON object is one, whatever is in it', async () => {
    const { choices } = await client.chat.completions.create({
      model,
      messages,
      n: 4,
      seed: 3,
      max_tokens: 200,
      response_format: { type: 'json_object' },
    })
    for (const { message, finish_reason } of choices) {
      expect(message.content).toMatch(/^\{/)
      if (finish_reason === 'stop') expect(JSON.parse(message.content ?? '')).toBeTypeOf('object')
    }
  })

  test.each([
    ['multipleOf', { type: 'object', properties: { a: { type: 'integer', multipleOf: 3 } } }],
    ['uniqueItems', { type: 'object', properties: { a: { type: 'array', uniqueItems: true } } }],
    ['not', { type: 'object', properties: { a: { not: { type: 'null' } } } }],
  ])('a keyword that cannot be honoured is named: %s', async (keyword, schema) => {
    const error = await client.chat.completions
      .create({ model, messages, response_format: format(schema) })
      .catch((error: unknown) => error)
    expect(error).toBeInstanceOf(OpenAI.BadRequestError)
    expect(error).toMatchObject({
      status: 400,
      code: 'invalid_json_schema',
      param: `response_format.json_schema.schema.properties.a.${keyword}`,
    })
  })
})
