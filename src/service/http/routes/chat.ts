// POST /chat/completions: one answer, or the same as a stream of chunks; kept where the client wants it.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Static } from 'typebox'
import { createGathering, gather, gathering } from '../../scheduler/generations.ts'
import { answer, type Inference, randomPad, randomSeed, tellIgnored } from '../answer.ts'
import {
  ChatCompletionRequest,
  ignoredByChat,
  maxTokensParam,
  toGeneration,
} from '../schemas/chat.ts'
import {
  ChatCompletion,
  ChatCompletionChunk,
  presentChat,
  presentChatChunks,
} from '../schemas/chat-reply.ts'
import { usesFunctions } from '../schemas/functions.ts'
import { includeUsage, wholeOrStream } from '../schemas/generation.ts'
import { askedWith } from '../schemas/stored-chat.ts'

export const chatRoutes: FastifyPluginAsyncTypebox<Inference> = async (app, inference) => {
  const { completions } = inference
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
      const seed = randomSeed()
      const generation = toGeneration(body, seed)
      const tool_names = generation.tool_use?.tools.map(({ name }) => name) ?? []
      const tools = { tool_names, functions: usesFunctions(body) }
      const options = {
        ...tools,
        n: generation.n,
        include_usage: includeUsage(body),
        ...(body.stream_options?.include_obfuscation && { pad: randomPad }),
      }
      const tier = (body.service_tier ?? null) === null ? {} : { service_tier: 'default' as const }
      const { project_id } = request.caller
      const keep = async (completion: Static<typeof ChatCompletion>) => {
        if (!body.store) return completion
        const { id, model } = completion
        await completions.keep({
          id,
          project_id,
          model,
          metadata: body.metadata ?? {},
          completion: { ...completion, ...askedWith(body, seed) },
          messages: body.messages,
        })
        return completion
      }
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
            keep(presentChat({ ...head, ...tier }, await gather(events), tools)),
          async *chunks(head, events) {
            const gathered = createGathering()
            yield* presentChatChunks({ ...head, ...tier }, gathering(events, gathered), options)
            await keep(presentChat({ ...head, ...tier }, gathered.answers, tools))
          },
        },
      )
    },
  )
}
