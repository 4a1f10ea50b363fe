// Tools end to end: the official client's own helpers put the calls together that a real model is held to.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type InferenceServer, startInferenceServer } from '../../support/inference-server.ts'
import { shared } from '../../support/shared.ts'

const stories = shared('models/stories260k')
const model = 'stories-tools'
const messages = [{ role: 'user' as const, content: 'Once upon a time' }]
const parameters = {
  type: 'object',
  properties: {
    unit: { enum: ['celsius', 'kelvin'] },
    days: { type: 'integer', minimum: 1, maximum: 9 },
  },
  required: ['unit', 'days'],
  additionalProperties: false,
}
const tool = (name: string) => ({ type: 'function' as const, function: { name, parameters } })
const tools = [tool('get_weather'), tool('get_time')]

describe.skipIf(stories.missing)('tools', () => {
  let folder: string
  let server: InferenceServer
  let client: OpenAI

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'luthier-tools-'))
    server = await startInferenceServer(stories.path, folder)
    client = server.client
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  const expectCall = (text: string) => {
    const args = JSON.parse(text) as { unit: string; days: number }
    expect(parameters.properties.unit.enum).toContain(args.unit)
    expect(args.days).toBeGreaterThanOrEqual(1)
    expect(args.days).toBeLessThanOrEqual(9)
  }

  test('required: the answer is a call of one of the tools, its arguments of its schema', async () => {
    const { choices } = await client.chat.completions.create({
      model,
      messages,
      tools,
      tool_choice: 'required',
      parallel_tool_calls: false,
      max_tokens: 200,
      n: 3,
      seed: 1,
    })
    for (const { message, finish_reason } of choices) {
      expect(finish_reason).toBe('tool_calls')
      expect(message.content).toBeNull()
      expect(message.tool_calls).toHaveLength(1)
      const [call] = message.tool_calls ?? []
      if (call?.type !== 'function') throw new Error('no function')
      expect(call.id).toMatch(/^call_/)
      expect(['get_weather', 'get_time']).toContain(call.function.name)
      expectCall(call.function.arguments)
    }
  })

  test('allowed_tools and a name leave no other tool to call', async () => {
    const named = { type: 'function' as const, function: { name: 'get_time' } }
    for (const tool_choice of [
      named,
      {
        type: 'allowed_tools' as const,
        allowed_tools: { mode: 'required' as const, tools: [named] },
      },
    ]) {
      const { choices } = await client.chat.completions.create({
        model,
        messages,
        tools,
        tool_choice,
        parallel_tool_calls: false,
        max_tokens: 200,
      })
      expect(choices[0]?.message.tool_calls?.[0]).toMatchObject({ function: { name: 'get_time' } })
    }
    await expect(
      client.chat.completions.create({
        model,
        messages,
        tools,
        tool_choice: { type: 'function', function: { name: 'other' } },
      }),
    ).rejects.toMatchObject({ status: 400, param: 'tool_choice' })
  })

  test("the client's stream helper puts the call together from its pieces", async () => {
    const stream = client.chat.completions.stream({
      model,
      messages,
      tools,
      tool_choice: 'required',
      parallel_tool_calls: false,
      max_tokens: 200,
      seed: 2,
    })
    const final = await stream.finalChatCompletion()
    const [call] = final.choices[0]?.message.tool_calls ?? []
    if (call?.type !== 'function') throw new Error('no function')
    expect(final.choices[0]?.finish_reason).toBe('tool_calls')
    expectCall(call.function.arguments)
  })

  test("the client's runTools calls the function, and the conversation with its result goes on", async () => {
    const given: unknown[] = []
    const runner = client.chat.completions.runTools({
      model,
      messages,
      max_tokens: 200,
      seed: 3,
      parallel_tool_calls: false,
      tool_choice: { type: 'function', function: { name: 'get_weather' } },
      tools: [
        {
          type: 'function',
          function: {
            name: 'get_weather',
            description: 'The weather.',
            parameters,
            parse: JSON.parse,
            function: (args: unknown) => {
              given.push(args)
              return 'sunny'
            },
          },
        },
      ],
    })
    await runner.done()
    expect(given).toHaveLength(1)
    const history = runner.messages
    expect(history.at(-1)).toMatchObject({ role: 'tool', content: 'sunny' })
    const next = await client.chat.completions.create({
      model,
      messages: history,
      tools,
      max_tokens: 5,
    })
    expect(next.choices[0]?.message.role).toBe('assistant')
  })

  test('functions, the older form: one call without an id, streamed as well, and its result', async () => {
    const asked = {
      model,
      messages,
      functions: [
        { name: 'get_weather', parameters },
        { name: 'get_time', parameters },
      ],
      function_call: { name: 'get_time' },
      max_tokens: 200,
      seed: 4,
    }
    const { choices } = await client.chat.completions.create(asked)
    const [choice] = choices
    expect(choice?.finish_reason).toBe('function_call')
    expect(choice?.message).not.toHaveProperty('tool_calls')
    const call = choice?.message.function_call
    expect(call?.name).toBe('get_time')
    expectCall(call?.arguments ?? '')

    let [name, args, reason] = ['', '', '']
    for await (const { choices } of await client.chat.completions.create({
      ...asked,
      stream: true,
    })) {
      const [{ delta, finish_reason }] = choices as [(typeof choices)[number]]
      name += delta.function_call?.name ?? ''
      args += delta.function_call?.arguments ?? ''
      reason = finish_reason ?? reason
    }
    expect({ name, arguments: args }).toEqual(call)
    expect(reason).toBe('function_call')

    const older = await client.chat.completions.create({
      model,
      max_tokens: 5,
      temperature: 0,
      messages: [
        ...messages,
        { role: 'assistant', content: null, function_call: call! },
        { role: 'function', name: 'get_time', content: 'noon' },
      ],
    })
    const newer = await client.chat.completions.create({
      model,
      max_tokens: 5,
      temperature: 0,
      messages: [
        ...messages,
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: 'call_1', type: 'function', function: call! }],
        },
        { role: 'tool', tool_call_id: 'call_1', content: 'noon' },
      ],
    })
    expect(older.choices[0]?.message.content).toBe(newer.choices[0]?.message.content)
    expect(older.usage?.prompt_tokens).toBe(newer.usage?.prompt_tokens)

    for (const [wrong, param] of [
      [{ function_call: { name: 'other' } }, 'function_call'],
      [{ function_call: 'auto' as const, functions: [] }, 'function_call'],
      [{ tools }, 'functions'],
    ] as const)
      await expect(
        client.chat.completions.create({ ...asked, ...wrong } as never),
      ).rejects.toMatchObject({ status: 400, param })
  })
})
