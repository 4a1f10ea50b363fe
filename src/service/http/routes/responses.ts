// /responses: one answer, whole or as a stream of events, that may be kept and gone on from.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { InferEvent } from '../../../engine/infer/request.ts'
import { messagesOf, withoutOldest } from '../../answers/items.ts'
import type { Generation } from '../../scheduler/serving.ts'
import { answer, type Inference, randomPad, randomSeed, tellIgnored } from '../answer.ts'
import { cutPage, presentPage } from '../pagination.ts'
import type { AnswerHead } from '../schemas/generation.ts'
import { refuse, wholeOrStream } from '../schemas/generation.ts'
import { type ResponseStreamEvent, responseEvents } from '../schemas/response-events.ts'
import {
  checkCalls,
  GetResponseQuery,
  ItemList,
  ItemParams,
  ListItemsQuery,
  readInput,
} from '../schemas/response-items.ts'
import {
  DeletedResponse,
  ignoredByResponses,
  presentResponse,
  ResponseEvent,
  ResponseObject,
  ResponseRequest,
  refuseUnsupported,
  toGeneration,
} from '../schemas/responses.ts'
import { NAMED } from '../sse.ts'

const tags = ['Responses']
const RESPONSE = '/responses/:response_id'
const DEFAULT_LIMIT = 20

export const responseRoutes: FastifyPluginAsyncTypebox<Inference> = async (app, inference) => {
  const { responses } = inference
  app.addSchema(ResponseObject)

  app.post(
    '/responses',
    {
      schema: {
        operationId: 'createResponse',
        summary: 'Answers, and keeps the answer so that others may go on from it.',
        tags,
        body: ResponseRequest,
        response: { 200: wholeOrStream(Type.Ref('Response#'), ResponseEvent) },
      },
    },
    async (request, reply) => {
      const { body, caller } = request
      const { project_id } = caller
      refuseUnsupported(body)
      tellIgnored(reply, ignoredByResponses(body))
      const input = readInput(body.input)
      const previous_response_id = body.previous_response_id ?? null
      const before =
        previous_response_id === null
          ? []
          : await responses.conversation(project_id, previous_response_id)
      const items = [...before, ...input]
      checkCalls(items)
      const generation = toGeneration(body, messagesOf(items, body.instructions), randomSeed())

      const events = (head: AnswerHead, inferred: AsyncIterable<InferEvent>) =>
        responseEvents(inferred, {
          tool_names: generation.tool_use?.tools.map(({ name }) => name) ?? [],
          present: (progress) => presentResponse(body, head, progress),
          async keep(response) {
            if (body.store === false) return
            const { id } = head
            await responses.keep({ id, project_id, previous_response_id, response, input })
          },
          pad: body.stream_options?.include_obfuscation ? randomPad : undefined,
        })
      return answer(
        inference,
        request,
        reply,
        {
          model: body.model,
          prefix: 'resp_',
          generations: [generation],
          stream: body.stream === true,
          params: { max_tokens: 'max_output_tokens', messages: 'input' },
          framing: NAMED,
          ...(body.truncation === 'auto' && { shorter: createShortener(generation) }),
        },
        {
          whole: async (head, inferred) => lastResponse(events(head, inferred)),
          chunks: events,
        },
      )
    },
  )

  app.get(
    RESPONSE,
    {
      schema: {
        operationId: 'getResponse',
        summary: 'Retrieves a response that was kept.',
        tags,
        params: ItemParams,
        querystring: GetResponseQuery,
        response: { 200: Type.Ref('Response#') },
      },
    },
    async ({ caller, params, query }) => {
      refuse(query, { stream: [false] })
      return (await responses.retrieve(caller.project_id, params.response_id))
        .response as ResponseObject
    },
  )

  app.delete(
    RESPONSE,
    {
      schema: {
        operationId: 'deleteResponse',
        summary: 'Deletes a response. Nothing can go on from it any more, nor from those that did.',
        tags,
        params: ItemParams,
        response: { 200: DeletedResponse },
      },
    },
    async ({ caller, params: { response_id } }) => {
      await responses.delete(caller.project_id, response_id)
      return { id: response_id, object: 'response' as const, deleted: true as const }
    },
  )

  app.get(
    `${RESPONSE}/input_items`,
    {
      schema: {
        operationId: 'listInputItems',
        summary: "Lists what was new in a response's request, the last first.",
        tags,
        params: ItemParams,
        querystring: ListItemsQuery,
        response: { 200: ItemList },
      },
    },
    async ({ caller, params, query }) => {
      const { after, limit = DEFAULT_LIMIT, order = 'desc' } = query
      const found = await responses.items(caller.project_id, params.response_id, {
        after,
        limit,
        order,
      })
      return presentPage(cutPage(found, limit))
    },
  )
}

/** All that a whole answer tells is in the last event. */
async function lastResponse(events: AsyncIterable<ResponseStreamEvent>): Promise<ResponseObject> {
  let last: ResponseObject | undefined
  for await (const { response } of events) last = response ?? last
  if (!last) throw new Error('A response ended without an event.')
  return last
}

/** Leaves out one turn, then two, four and so on, the oldest first, until nothing but the last could go. */
function createShortener({
  prompt,
}: Generation): (asked: readonly Generation[]) => Generation[] | undefined {
  let turns = 0.5
  return ([asked]) => {
    if (!asked || !('messages' in prompt)) return undefined
    turns *= 2
    const messages = withoutOldest(prompt.messages, turns)
    const same = 'messages' in asked.prompt && messages?.length === asked.prompt.messages.length
    return messages && !same ? [{ ...asked, prompt: { ...prompt, messages } }] : undefined
  }
}
