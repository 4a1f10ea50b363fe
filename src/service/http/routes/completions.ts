// POST /completions: text goes on, whole or as a stream of chunks.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { best, gather } from '../../scheduler/generations.ts'
import { answer, type Inference, randomSeed, tellIgnored } from '../answer.ts'
import {
  Completion,
  CompletionRequest,
  ignoredByCompletions,
  keptOf,
  madeOf,
  presentCompletion,
  presentCompletionChunks,
  toGenerations,
} from '../schemas/completions.ts'
import { includeUsage, wholeOrStream } from '../schemas/generation.ts'

export const completionRoutes: FastifyPluginAsyncTypebox<Inference> = async (app, inference) => {
  app.post(
    '/completions',
    {
      schema: {
        operationId: 'createCompletion',
        summary: 'Continues one text or several, whole or as a stream of events.',
        tags: ['Completions'],
        body: CompletionRequest,
        response: { 200: wholeOrStream(Completion, Completion) },
      },
    },
    async (request, reply) => {
      const { body } = request
      tellIgnored(reply, ignoredByCompletions(body))
      const generations = toGenerations(body, randomSeed())
      const wanted = { logprobs: typeof body.logprobs === 'number' }
      const options = { ...wanted, include_usage: includeUsage(body) }
      return answer(
        inference,
        request,
        reply,
        {
          model: body.model,
          prefix: 'cmpl-',
          generations,
          stream: body.stream === true,
          params: {},
        },
        {
          whole: async (head, events) =>
            presentCompletion(head, best(await gather(events), keptOf(body), madeOf(body)), wanted),
          chunks: (head, events) => presentCompletionChunks(head, events, options),
        },
      )
    },
  )
}
