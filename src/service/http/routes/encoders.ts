// POST /embeddings and /classifications: texts in, vectors or labels out.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Encodings } from '../../../engine/infer/encode-request.ts'
import { newId } from '../../ids.ts'
import type { Encoding } from '../../scheduler/serving.ts'
import { clientGone, type Inference, tellIgnored } from '../answer.ts'
import { deadlineIn } from '../deadline.ts'
import {
  ClassificationReply,
  ClassificationRequest,
  EmbeddingReply,
  EmbeddingRequest,
  presentClassifications,
  presentEmbeddings,
  toClassification,
  toEmbedding,
} from '../schemas/encoders.ts'
import { ignoredFields } from '../schemas/generation.ts'

export const encoderRoutes: FastifyPluginAsyncTypebox<Inference> = async (app, inference) => {
  app.addSchema(EmbeddingReply)
  app.addSchema(ClassificationReply)

  app.post(
    '/embeddings',
    {
      schema: {
        operationId: 'createEmbedding',
        summary: 'Gives each text a vector; texts alike in meaning have vectors that are near.',
        tags: ['Encoders'],
        body: EmbeddingRequest,
        response: { 200: Type.Ref('CreateEmbeddingResponse#') },
      },
    },
    async (request, reply) => {
      const { body } = request
      tellIgnored(reply, ignoredFields(body, EmbeddingRequest))
      const encodings = await encode(inference, request, reply, body.model, toEmbedding(body))
      return encodings ? presentEmbeddings(body.model, encodings, body) : reply.hijack()
    },
  )

  app.post(
    '/classifications',
    {
      schema: {
        operationId: 'createClassification',
        summary: 'Tells the labels of each text, or its labelled spans, with probabilities.',
        tags: ['Encoders'],
        body: ClassificationRequest,
        response: { 200: Type.Ref('CreateClassificationResponse#') },
      },
    },
    async (request, reply) => {
      const { body } = request
      tellIgnored(reply, ignoredFields(body, ClassificationRequest))
      const encodings = await encode(inference, request, reply, body.model, toClassification(body))
      if (!encodings) return reply.hijack()
      const head = {
        id: newId('classify-'),
        created: Math.floor(Date.now() / 1000),
        model: body.model,
      }
      return presentClassifications(head, encodings)
    },
  )
}

/** About four letters make a token. */
const estimate = ({ input }: Encoding): number =>
  input.reduce((n, item) => n + (typeof item === 'string' ? item.length / 4 : item.length), 0)

/** Undefined where the client went away meanwhile. */
async function encode(
  { models, serving, limits, request_ms }: Inference,
  { caller }: FastifyRequest,
  reply: FastifyReply,
  name: string,
  encoding: Encoding,
): Promise<Encodings | undefined> {
  const model = await models.resolve(caller.project_id, name)
  const { headers, took } = limits.take(caller.key_id, Math.ceil(estimate(encoding)), Date.now())
  reply.headers(headers)
  const gone = clientGone(reply)
  using deadline = deadlineIn(request_ms)
  let used = 0
  try {
    const either = AbortSignal.any([gone, deadline.signal])
    const encodings = await serving.encode(model, encoding, either)
    used = encodings.prompt_tokens
    return encodings
  } catch (error) {
    if (gone.aborted) return undefined
    deadline.check()
    throw error
  } finally {
    limits.settle(caller.key_id, { took, used }, Date.now())
  }
}
