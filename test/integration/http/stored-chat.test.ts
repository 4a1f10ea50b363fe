// Chat completions with `store`, through the official client: kept as they were answered, listed, noted upon, deleted.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type InferenceServer, startInferenceServer } from '../../support/inference-server.ts'
import { shared } from '../../support/shared.ts'

const stories = shared('models/stories260k')
const messages = [
  { role: 'system' as const, content: 'Lily was a girl. ' },
  { role: 'user' as const, content: [{ type: 'text' as const, text: 'Once upon a time' }] },
]
const parameters = {
  type: 'object',
  properties: { unit: { enum: ['celsius', 'kelvin'] } },
  required: ['unit'],
  additionalProperties: false,
}
const asked = { model: 'stories-chat', messages, max_tokens: 8, store: true }

describe.skipIf(stories.missing)('stored chat completions', () => {
  let folder: string
  let server: InferenceServer
  let client: OpenAI

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'luthier-stored-'))
    server = await startInferenceServer(stories.path, folder)
    client = server.client
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  test('an answer is kept with what it was asked with, and its messages', async () => {
    const { data: answer, response } = await client.chat.completions
      .create({ ...asked, temperature: 0.5, seed: 7, n: 2, metadata: { of: 'one' } })
      .withResponse()
    expect(response.headers.get('x-luthier-ignored')).toBeNull()
    expect(await client.chat.completions.retrieve(answer.id)).toMatchObject({
      ...answer,
      metadata: { of: 'one' },
      temperature: 0.5,
      seed: 7,
      tools: null,
    })
    const kept: OpenAI.Chat.ChatCompletionStoreMessage[] = []
    for await (const message of client.chat.completions.messages.list(answer.id, { limit: 1 }))
      kept.push(message)
    expect(kept).toMatchObject([
      { id: `${answer.id}-0`, role: 'system', content: 'Lily was a girl. ', content_parts: null },
      {
        id: `${answer.id}-1`,
        role: 'user',
        content: null,
        content_parts: [{ type: 'text', text: 'Once upon a time' }],
      },
    ])
    const { data } = await client.chat.completions.messages.list(answer.id, { order: 'desc' })
    expect(data.map(({ role }) => role)).toEqual(['user', 'system'])
  })

  test('a stream is kept as it was told, calls under the same ids', async () => {
    const stream = client.chat.completions.stream({
      ...asked,
      model: 'stories-tools',
      max_tokens: 200,
      seed: 1,
      tools: [{ type: 'function', function: { name: 'f', parameters } }],
      tool_choice: 'required',
      parallel_tool_calls: false,
    })
    const told = await stream.finalChatCompletion()
    const kept = await client.chat.completions.retrieve(told.id)
    const [call] = kept.choices[0]?.message.tool_calls ?? []
    expect(call?.id).toMatch(/^call_/)
    expect(call).toMatchObject({ id: told.choices[0]?.message.tool_calls?.[0]?.id })
    expect(kept.choices[0]?.finish_reason).toBe(told.choices[0]?.finish_reason)
    expect(kept.usage?.completion_tokens).toBeGreaterThan(0)

    const text = client.chat.completions.stream(asked)
    const said = await text.finalChatCompletion()
    const same = await client.chat.completions.retrieve(said.id)
    expect(same.choices[0]?.message.content).toBe(said.choices[0]?.message.content)
    expect(same.choices[0]?.message.content).not.toBe('')
  })

  test('they are listed by model and metadata, the oldest first, page by page', async () => {
    const ids: string[] = []
    for (const model of ['stories-chat', 'stories-chat', 'gpt-4o-mini'])
      ids.push(
        (
          await client.chat.completions.create({
            ...asked,
            model,
            metadata: { of: 'list', a: 'b' },
          })
        ).id,
      )
    const listed = async (query: OpenAI.Chat.ChatCompletionListParams) => {
      const found: string[] = []
      for await (const { id } of client.chat.completions.list({ limit: 1, ...query }))
        found.push(id)
      return found
    }
    expect(await listed({ metadata: { of: 'list' } })).toEqual(ids)
    expect(await listed({ metadata: { of: 'list' }, order: 'desc' })).toEqual(ids.toReversed())
    expect(await listed({ metadata: { of: 'list', a: 'c' } })).toEqual([])
    expect(await listed({ metadata: { of: 'list' }, model: 'gpt-4o-mini' })).toEqual([ids[2]])
    expect(await listed({ metadata: { of: 'list' }, after: ids[1]! })).toEqual([ids[2]])
    await expect(client.chat.completions.list({ after: 'chatcmpl-1' })).rejects.toMatchObject({
      status: 400,
      param: 'after',
    })
  })

  test('metadata is replaced, and a deleted one is gone', async () => {
    const { id } = await client.chat.completions.create({ ...asked, metadata: { a: 'b' } })
    const updated = await client.chat.completions.update(id, { metadata: { c: 'd' } })
    expect(updated).toMatchObject({ id, metadata: { c: 'd' } })
    expect(await client.chat.completions.retrieve(id)).toMatchObject({ metadata: { c: 'd' } })
    expect(await client.chat.completions.delete(id)).toMatchObject({
      id,
      object: 'chat.completion.deleted',
      deleted: true,
    })
    for (const gone of [
      () => client.chat.completions.retrieve(id),
      () => client.chat.completions.update(id, { metadata: {} }),
      () => client.chat.completions.messages.list(id),
      () => client.chat.completions.delete(id),
    ])
      await expect(gone()).rejects.toMatchObject({ status: 404, param: 'completion_id' })
  })

  test('without `store` nothing is kept, and metadata does nothing', async () => {
    const { data, response } = await client.chat.completions
      .create({ ...asked, store: false, metadata: { a: 'b' } })
      .withResponse()
    expect(response.headers.get('x-luthier-ignored')).toBe('metadata')
    await expect(client.chat.completions.retrieve(data.id)).rejects.toMatchObject({ status: 404 })
  })
})
