// POST /moderations: a tuned classifier's labels as OpenAI's categories.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { newId } from '../../ids.ts'
import { type Inference, tellIgnored } from '../answer.ts'
import { encode } from '../encode.ts'
import { ignoredFields } from '../schemas/generation.ts'
import {
  ModerationReply,
  ModerationRequest,
  moderationModel,
  presentModerations,
  toModeration,
} from '../schemas/moderations.ts'

export const moderationRoutes: FastifyPluginAsyncTypebox<Inference> = async (app, inference) => {
  app.addSchema(ModerationReply)

  app.post(
    '/moderations',
    {
      schema: {
        operationId: 'createModeration',
        summary: 'Tells which categories of harm a tuned classifier finds in each text.',
        tags: ['Encoders'],
        body: ModerationRequest,
        response: { 200: Type.Ref('CreateModerationResponse#') },
      },
    },
    async (request, reply) => {
      const { body } = request
      tellIgnored(reply, ignoredFields(body, ModerationRequest))
      const model = moderationModel(body, inference.moderation_model)
      const encodings = await encode(inference, request, reply, model, toModeration(body))
      return encodings
        ? presentModerations({ id: newId('modr-'), model }, encodings)
        : reply.hijack()
    },
  )
}
