// POST /chat/completions: one answer, or the same as a stream of chunks.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { gather } from '../../scheduler/generations.ts'
import { answer, type Inference, randomPad, randomSeed, tellIgnored } from '../answer.ts'
import {
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionRequest,
  ignoredByChat,
  maxTokensParam,
  presentChat,
  presentChatChunks,
  toGeneration,
} from '../schemas/chat.ts'
import { includeUsage, wholeOrStream } from '../schemas/generation.ts'

export const chatRoutes: FastifyPluginAsyncTypebox<Inference> = async (app, inference) => {
  app.post(
    '/chat/completions',
    {
      schema: {
        operationId: 'createChatCompletion',
        summary: 'Answers a conversation, whole or as a stream of events.',
        tags: ['Chat'],
        body: ChatCompletionRequest,
        response: { 200: wholeOrStream(ChatCompletion, ChatCompletionChunk) },
      },
    },
    async (request, reply) => {
      const { body } = request
      tellIgnored(reply, ignoredByChat(body))
      const generation = toGeneration(body, randomSeed())
      const tool_names = generation.tool_use?.tools.map(({ name }) => name) ?? []
      const options = {
        tool_names,
        n: generation.n,
        include_usage: includeUsage(body),
        ...(body.stream_options?.include_obfuscation && { pad: randomPad }),
      }
      const tier = (body.service_tier ?? null) === null ? {} : { service_tier: 'default' as const }
      return answer(
        inference,
        request,
        reply,
        {
          model: body.model,
          prefix: 'chatcmpl-',
          generations: [generation],
          stream: body.stream === true,
          params: { max_tokens: maxTokensParam(body) },
        },
        {
          whole: async (head, events) =>
            presentChat({ ...head, ...tier }, await gather(events), tool_names),
          chunks: (head, events) => presentChatChunks({ ...head, ...tier }, events, options),
        },
      )
    },
  )
}
