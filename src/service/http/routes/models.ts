// /models: what can be named as `model`.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { LatestEval } from '../../evals/latest.ts'
import type { Models } from '../../models/model.ts'
import {
  DeletedModel,
  ModelList,
  ModelParams,
  ModelReply,
  presentModel,
} from '../schemas/models.ts'

export interface ModelsDeps {
  readonly models: Pick<Models, 'list' | 'retrieve' | 'delete'>
  readonly latestEval: (project_id: string, model: string) => Promise<LatestEval | undefined>
}

const tags = ['Models']

export const modelRoutes: FastifyPluginAsyncTypebox<ModelsDeps> = async (
  app,
  { models, latestEval },
) => {
  app.addSchema(ModelReply)

  app.get(
    '/models',
    {
      schema: {
        operationId: 'listModels',
        summary: 'Lists base models, aliases and the tuned models of the project.',
        tags,
        response: { 200: ModelList },
      },
    },
    async ({ caller }) => ({
      object: 'list' as const,
      data: (await models.list(caller.project_id)).map((model) => presentModel(model)),
    }),
  )

  app.get(
    '/models/:model',
    {
      schema: {
        operationId: 'retrieveModel',
        summary: 'Retrieves a model by its name; a checkpoint has one too.',
        tags,
        params: ModelParams,
        response: { 200: Type.Ref('Model#') },
      },
    },
    async ({ caller: { project_id }, params: { model } }) =>
      presentModel(await models.retrieve(project_id, model), await latestEval(project_id, model)),
  )

  app.delete(
    '/models/:model',
    {
      schema: {
        operationId: 'deleteModel',
        summary: 'Deletes a tuned model and ends the names of its checkpoints.',
        tags,
        params: ModelParams,
        response: { 200: DeletedModel },
      },
    },
    async ({ caller, params }) => {
      await models.delete(caller.project_id, params.model)
      return { id: params.model, object: 'model' as const, deleted: true as const }
    },
  )
}
