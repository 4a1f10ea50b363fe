// POST /embeddings and /classifications: texts in, vectors or labels out.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { newId } from '../../ids.ts'
import { type Inference, tellIgnored } from '../answer.ts'
import { encode } from '../encode.ts'
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
