// /responses end to end: the official client, a listening server, a real model; every reply held against OpenAI's description.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type InferenceServer, startInferenceServer } from '../../support/inference-server.ts'
import { shared } from '../../support/shared.ts'

const stories = shared('models/stories260k')
const model = 'stories-chat'
const input = 'Once upon a time'
const greedy = { model, input, temperature: 0, max_output_tokens: 16 }

const parameters = {
  type: 'object',
  properties: { unit: { enum: ['celsius', 'kelvin'] } },
  required: ['unit'],
  additionalProperties: false,
}
const tool = {
  type: 'function' as const,
  name: 'get_weather',
  description: 'The weather.',
  parameters,
  strict: true,
}

describe.skipIf(stories.missing)('responses', () => {
  let folder: string
  let server: InferenceServer
  let client: OpenAI

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'luthier-responses-'))
    server = await startInferenceServer(stories.path, folder)
    client = server.client
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  test('the text is that of a chat completion, and the answer says what was asked', async () => {
    const instructions = 'Lily was a girl. '
    const answer = await client.responses.create({
      ...greedy,
      instructions,
      metadata: { a: 'b' },
      max_output_tokens: 64,
    })
    const chat = await client.chat.completions.create({
      model,
      messages: [
        { role: 'system', content: instructions },
        { role: 'user', content: input },
      ],
      temperature: 0,
      max_tokens: 64,
    })
    expect(answer.output_text).toBe(chat.choices[0]?.message.content)
    expect(answer).toMatchObject({
      object: 'response',
      status: 'incomplete',
      error: null,
      incomplete_details: { reason: 'max_output_tokens' },
      instructions,
      metadata: { a: 'b' },
      previous_response_id: null,
      temperature: 0,
      store: true,
      usage: {
        input_tokens: chat.usage?.prompt_tokens,
        output_tokens: chat.usage?.completion_tokens,
        total_tokens: chat.usage?.total_tokens,
      },
    })
    expect(answer.id).toMatch(/^resp_/)
    expect(answer.output[0]).toMatchObject({ type: 'message', status: 'incomplete' })
  })

  test('events come in order, numbered, and add up to the whole answer', async () => {
    const seen: OpenAI.Responses.ResponseStreamEvent[] = []
    for await (const event of await client.responses.create({ ...greedy, stream: true }))
      seen.push(event)
    expect(seen.map(({ sequence_number }) => sequence_number)).toEqual(seen.map((_, at) => at))
    const types = seen.map(({ type }) => type)
    const deltas = types.filter((type) => type === 'response.output_text.delta').length
    expect(deltas).toBeGreaterThan(3)
    expect(types).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      ...Array.from({ length: deltas }, () => 'response.output_text.delta'),
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.incomplete',
    ])
    const last = seen.at(-1)
    if (last?.type !== 'response.incomplete') throw new Error('no end')
    expect(last.response.incomplete_details).toEqual({ reason: 'max_output_tokens' })
    const text = seen.map((event) =>
      event.type === 'response.output_text.delta' ? event.delta : '',
    )
    const whole = await client.responses.create(greedy)
    expect(text.join('')).toBe(whole.output_text)
    expect(whole.output_text).not.toBe('')
    expect(await client.responses.retrieve(last.response.id)).toMatchObject({
      status: 'incomplete',
      output_text: whole.output_text,
    })
  })

  test("the client's stream helper ends with the answer", async () => {
    const stream = client.responses.stream(greedy)
    let text = ''
    stream.on('response.output_text.delta', ({ delta, snapshot }) => {
      text += delta
      expect(snapshot).toBe(text)
    })
    expect((await stream.finalResponse()).output_text).toBe(text)
  })

  test("the client's parse gets JSON of the schema", async () => {
    const format = {
      type: 'json_schema' as const,
      name: 'answer',
      schema: {
        type: 'object',
        properties: { kind: { enum: ['cat', 'dog'] } },
        required: ['kind'],
        additionalProperties: false,
      },
    }
    // What the client's helper for zod makes of a schema.
    const parseable = Object.defineProperties(
      { ...format },
      {
        $brand: { value: 'auto-parseable-response-format' },
        $parseRaw: { value: (text: string) => JSON.parse(text) as unknown },
      },
    )
    const asked = { model, input, text: { format: parseable } }
    const { output_parsed, text, ...rest } = await client.responses.parse(asked)
    expect(rest).toMatchObject({ status: 'completed', incomplete_details: null })
    expect(rest.output).toMatchObject([{ type: 'message', status: 'completed' }])
    expect(rest.completed_at).toBeGreaterThanOrEqual(rest.created_at)
    expect(['cat', 'dog']).toContain((output_parsed as { kind: string } | null)?.kind)
    expect(text?.format).toEqual(format)
    const streamed = await client.responses.stream(asked).finalResponse()
    expect(['cat', 'dog']).toContain((streamed.output_parsed as { kind: string } | null)?.kind)
    const object = await client.responses.create({
      ...greedy,
      max_output_tokens: 400,
      text: { format: { type: 'json_object' } },
    })
    expect(object.status === 'incomplete' || JSON.parse(object.output_text)).toBeTruthy()
  })

  test('a function is called, streamed as well, and its result goes on from the call', async () => {
    const asked = {
      model: 'stories-tools',
      input,
      tools: [tool],
      tool_choice: { type: 'function' as const, name: 'get_weather' },
      parallel_tool_calls: false,
      max_output_tokens: 200,
      seed: 1,
    }
    const answer = await client.responses.create(asked)
    expect(answer.output).toHaveLength(1)
    const [call] = answer.output
    if (call?.type !== 'function_call') throw new Error('no call')
    expect(call).toMatchObject({ name: 'get_weather', status: 'completed' })
    expect(parameters.properties.unit.enum).toContain(JSON.parse(call.arguments).unit)
    expect(answer.tools).toEqual([tool])

    const types: string[] = []
    const stream = client.responses.stream(asked)
    stream.on('event', ({ type }) => types.push(type))
    const [same] = (await stream.finalResponse()).output
    expect(same).toMatchObject({ name: call.name, arguments: call.arguments })
    expect(types).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.function_call_arguments.delta',
      'response.function_call_arguments.done',
      'response.output_item.done',
      'response.completed',
    ])

    const output = { type: 'function_call_output' as const, call_id: call.call_id, output: 'sunny' }
    const next = { model: 'stories-tools', max_output_tokens: 16, temperature: 0, tools: [tool] }
    const later = await client.responses.create({
      ...next,
      previous_response_id: answer.id,
      input: [output],
    })
    // The same conversation, sent whole.
    const sent = await client.responses.create({
      ...next,
      input: [{ role: 'user', content: input }, call, output],
    })
    expect(later.output_text).toBe(sent.output_text)
    expect(later.usage?.input_tokens).toBe(sent.usage?.input_tokens)
    await expect(
      client.responses.create({ ...next, input: [{ ...output, call_id: 'call_other' }] }),
    ).rejects.toMatchObject({ status: 400, param: 'input' })
  })

  test('what was said before comes first; instructions are not carried over', async () => {
    const first = await client.responses.create({ ...greedy, instructions: 'Tom. ' })
    const second = await client.responses.create({
      ...greedy,
      previous_response_id: first.id,
      input: ' Then ',
    })
    const third = await client.responses.create({
      ...greedy,
      previous_response_id: second.id,
      input: ' And ',
    })
    const whole = await client.responses.create({
      ...greedy,
      store: false,
      input: [
        { role: 'user', content: input },
        { role: 'assistant', content: first.output_text },
        { role: 'user', content: [{ type: 'input_text', text: ' Then ' }] },
        { role: 'assistant', content: second.output_text },
        { type: 'message', role: 'user', content: ' And ' },
      ],
    })
    expect(third.output_text).toBe(whole.output_text)
    expect(third.usage?.input_tokens).toBe(whole.usage?.input_tokens)
    expect(third.previous_response_id).toBe(second.id)

    await client.responses.delete(first.id)
    await expect(
      client.responses.create({ ...greedy, previous_response_id: third.id }),
    ).rejects.toMatchObject({
      status: 400,
      code: 'previous_response_not_found',
      param: 'previous_response_id',
      message: expect.stringContaining(first.id),
    })
  })

  test('a response is kept unless it is not to be; its input is listed, and it is deleted', async () => {
    const kept = await client.responses.create({
      ...greedy,
      input: [
        { role: 'developer', content: 'a' },
        { role: 'user', content: 'b' },
        { role: 'user', content: 'c' },
      ],
    })
    expect(await client.responses.retrieve(kept.id)).toMatchObject({
      id: kept.id,
      output_text: kept.output_text,
      usage: kept.usage,
    })
    const items: OpenAI.Responses.ResponseItem[] = []
    for await (const item of client.responses.inputItems.list(kept.id, { limit: 2 }))
      items.push(item)
    expect(items.map((item) => (item.type === 'message' ? item.content[0] : item))).toMatchObject([
      { type: 'input_text', text: 'c' },
      { type: 'input_text', text: 'b' },
      { type: 'input_text', text: 'a' },
    ])
    await expect(client.responses.retrieve(kept.id, { stream: true })).rejects.toMatchObject({
      status: 400,
      param: 'stream',
    })
    await client.responses.delete(kept.id)
    for (const gone of [
      () => client.responses.retrieve(kept.id),
      () => client.responses.delete(kept.id),
      () => client.responses.inputItems.list(kept.id),
    ])
      await expect(gone()).rejects.toMatchObject({ status: 404, param: 'response_id' })
    const { id } = await client.responses.create({ ...greedy, store: false })
    await expect(client.responses.retrieve(id)).rejects.toMatchObject({ status: 404 })
  })

  test('what is no text to Postgres is kept, and gone on from', async () => {
    const odd = 'a \u0000 b \ud800 c'
    const first = await client.responses.create({ ...greedy, instructions: odd, input: odd })
    const { data } = await client.responses.inputItems.list(first.id)
    expect(data).toMatchObject([{ content: [{ type: 'input_text', text: odd }] }])
    const later = await client.responses.create({ ...greedy, previous_response_id: first.id })
    expect(later.output_text).not.toBe('')
  })

  test('log-probabilities are those of chat', async () => {
    const { output } = await client.responses.create({
      ...greedy,
      top_logprobs: 2,
      include: ['message.output_text.logprobs'],
    })
    const chat = await client.chat.completions.create({
      model,
      messages: [{ role: 'user', content: input }],
      temperature: 0,
      max_tokens: 16,
      logprobs: true,
      top_logprobs: 2,
    })
    const [message] = output
    if (message?.type !== 'message') throw new Error('no message')
    const [part] = message.content
    if (part?.type !== 'output_text') throw new Error('no text')
    const want = chat.choices[0]?.logprobs?.content ?? []
    expect(part.logprobs?.map(({ token }) => token)).toEqual(want.map(({ token }) => token))
    expect(part.logprobs?.[3]?.top_logprobs).toHaveLength(2)
  })

  test('truncation leaves out the oldest turns, without it a long conversation is refused', async () => {
    const turns = Array.from({ length: 40 }, (_, at) => [
      { role: 'user' as const, content: `The cat number ${at} went to the park to play.` },
      { role: 'assistant' as const, content: 'It was happy.' },
    ]).flat()
    const asked = { ...greedy, input: [...turns, { role: 'user' as const, content: input }] }
    await expect(client.responses.create(asked)).rejects.toMatchObject({
      status: 400,
      code: 'context_length_exceeded',
      param: 'input',
    })
    const answer = await client.responses.create({ ...asked, truncation: 'auto' })
    expect(answer.truncation).toBe('auto')
    expect(answer.usage?.input_tokens).toBeGreaterThan(100)
    await expect(
      client.responses.create({ ...greedy, input: 'cat '.repeat(2000), truncation: 'auto' }),
    ).rejects.toMatchObject({ code: 'context_length_exceeded' })
  })

  test.each([
    ['background', { background: true }, 'background', 'unsupported_parameter'],
    ['a conversation', { conversation: 'conv_1' }, 'conversation', 'unsupported_parameter'],
    [
      'a hosted tool',
      { tools: [{ type: 'web_search' as const }] },
      'tools[0].type',
      'unsupported_tool',
    ],
    [
      'an image',
      {
        input: [
          {
            role: 'user' as const,
            content: [
              { type: 'input_image' as const, detail: 'auto' as const, image_url: 'data:x' },
            ],
          },
        ],
      },
      'input[0].content[0].type',
      'invalid_value',
    ],
    [
      'an item of another kind',
      { input: [{ type: 'item_reference' as const, id: 'msg_1' }] },
      'input[0].type',
      'unsupported_parameter',
    ],
    [
      'a schema keyword',
      {
        text: {
          format: {
            type: 'json_schema' as const,
            name: 'a',
            schema: { type: 'object', properties: { n: { type: 'number', multipleOf: 2 } } },
          },
        },
      },
      'text.format.schema.properties.n.multipleOf',
      'invalid_json_schema',
    ],
    ['too few tokens', { max_output_tokens: 3 }, 'max_output_tokens', 'invalid_value'],
    ['too many', { max_output_tokens: 9999 }, 'max_output_tokens', 'context_length_exceeded'],
    [
      'a response that there is not',
      { previous_response_id: 'resp_1' },
      'previous_response_id',
      'previous_response_not_found',
    ],
  ])('%s is refused, streamed or not', async (_, field, param, code) => {
    for (const stream of [false, true])
      await expect(client.responses.create({ ...greedy, ...field, stream })).rejects.toMatchObject({
        status: 400,
        param,
        code,
      })
  })
})
