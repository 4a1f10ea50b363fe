// /chat/completions, those that were kept: look, list, note upon, delete; the messages that they answer.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { ChatCompletions } from '../../answers/chat-completions.ts'
import { cutPage, presentPage, unknownCursor } from '../pagination.ts'
import { listOf, readMetadataFilter } from '../schemas/fine-tuning.ts'
import {
  CompletionParams,
  DeletedCompletion,
  ListCompletionsQuery,
  ListMessagesQuery,
  presentMessages,
  presentStored,
  StoredChatCompletion,
  StoredChatMessage,
  UpdateCompletionRequest,
} from '../schemas/stored-chat.ts'

export interface StoredChatDeps {
  readonly completions: ChatCompletions
}

const tags = ['Chat']
const COMPLETION = '/chat/completions/:completion_id'
const DEFAULT_LIMIT = 20

export const storedChatRoutes: FastifyPluginAsyncTypebox<StoredChatDeps> = async (
  app,
  { completions },
) => {
  app.addSchema(StoredChatCompletion)
  app.addSchema(StoredChatMessage)

  app.get(
    '/chat/completions',
    {
      schema: {
        operationId: 'listChatCompletions',
        summary: 'Lists the chat completions that were kept, by model and metadata if wanted.',
        tags,
        querystring: ListCompletionsQuery,
        response: { 200: listOf('StoredChatCompletion#') },
      },
    },
    async ({ caller, query }) => {
      const { after, limit = DEFAULT_LIMIT, order = 'asc', model } = query
      const metadata = readMetadataFilter(query) ?? undefined
      const wanted = { after, limit, order, model, metadata }
      const found = await completions.list(caller.project_id, wanted)
      return presentPage(cutPage(found.map(presentStored), limit))
    },
  )

  app.get(
    COMPLETION,
    {
      schema: {
        operationId: 'getChatCompletion',
        summary: 'Retrieves a chat completion that was kept.',
        tags,
        params: CompletionParams,
        response: { 200: Type.Ref('StoredChatCompletion#') },
      },
    },
    async ({ caller, params }) =>
      presentStored(await completions.retrieve(caller.project_id, params.completion_id)),
  )

  app.post(
    COMPLETION,
    {
      schema: {
        operationId: 'updateChatCompletion',
        summary: 'Replaces the metadata of a chat completion that was kept.',
        tags,
        params: CompletionParams,
        body: UpdateCompletionRequest,
        response: { 200: Type.Ref('StoredChatCompletion#') },
      },
    },
    async ({ caller, params, body }) =>
      presentStored(
        await completions.update(caller.project_id, params.completion_id, body.metadata ?? {}),
      ),
  )

  app.delete(
    COMPLETION,
    {
      schema: {
        operationId: 'deleteChatCompletion',
        summary: 'Deletes a chat completion that was kept.',
        tags,
        params: CompletionParams,
        response: { 200: DeletedCompletion },
      },
    },
    async ({ caller, params: { completion_id } }) => {
      await completions.delete(caller.project_id, completion_id)
      const object = 'chat.completion.deleted' as const
      return { object, id: completion_id, deleted: true as const }
    },
  )

  app.get(
    `${COMPLETION}/messages`,
    {
      schema: {
        operationId: 'getChatCompletionMessages',
        summary: 'Lists the messages that a chat completion answers.',
        tags,
        params: CompletionParams,
        querystring: ListMessagesQuery,
        response: { 200: listOf('StoredChatMessage#') },
      },
    },
    async ({ caller, params, query }) => {
      const { after, limit = DEFAULT_LIMIT, order = 'asc' } = query
      const kept = await completions.retrieve(caller.project_id, params.completion_id)
      const messages = presentMessages(kept)
      if (order === 'desc') messages.reverse()
      const at = after === undefined ? -1 : messages.findIndex(({ id }) => id === after)
      if (after !== undefined && at < 0) throw unknownCursor(after)
      return presentPage(cutPage(messages.slice(at + 1, at + 2 + limit), limit))
    },
  )
}
