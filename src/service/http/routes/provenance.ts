// Weights of models as downloads, and where models come from.

import { Readable } from 'node:stream'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { invalidRequest } from '../../../errors.ts'
import type { ModelWeights } from '../../models/weights.ts'
import type { Learned, Provenance } from '../../provenance/provenance.ts'
import { cutPage, presentPage } from '../pagination.ts'
import { ModelParams } from '../schemas/models.ts'
import {
  AnswerList,
  AnswersQuery,
  KeptAnswerReply,
  KeyReply,
  LineageEntry,
  LineageList,
  LineageQuery,
  presentAncestor,
  presentAnswer,
  StatementReply,
  WeightsQuery,
} from '../schemas/provenance.ts'

export interface ProvenanceDeps {
  readonly weights: ModelWeights
  readonly provenance: Provenance
}

const tags = ['Models']
const DEFAULT_LIMIT = 20

const refuseNothing = ({ file, row_sha256 }: Learned): void => {
  if (file === undefined && row_sha256 === undefined)
    throw invalidRequest('Name a `file` or a `row_sha256`.', {
      param: 'file',
      code: 'missing_required_parameter',
    })
}

export const provenanceRoutes: FastifyPluginAsyncTypebox<ProvenanceDeps> = async (
  app,
  { weights, provenance },
) => {
  app.addSchema(LineageEntry)
  app.addSchema(KeptAnswerReply)
  app.addSchema(StatementReply)

  app.get(
    '/models/:model/weights',
    {
      schema: {
        operationId: 'retrieveModelWeights',
        summary: 'Downloads a model as a tar archive, or as one GGUF file.',
        tags,
        params: ModelParams,
        querystring: WeightsQuery,
        response: {
          200: {
            description: 'The archive or the file, made while it is sent.',
            content: {
              'application/octet-stream': {
                schema: Type.Unsafe<unknown>({
                  type: 'string',
                  contentMediaType: 'application/octet-stream',
                }),
              },
            },
          },
        },
      },
    },
    async ({ caller, params, query }, reply) => {
      const { format = 'hf', dtype = 'f32', ...rest } = query
      const wanted = { format, dtype, ...rest }
      const { filename, bytes } = await weights.download(caller.project_id, params.model, wanted)
      return reply
        .header(
          'content-type',
          format === 'gguf' ? 'application/octet-stream' : 'application/x-tar',
        )
        .header(
          'content-disposition',
          `attachment; filename*=UTF-8''${encodeURIComponent(filename)}`,
        )
        .send(Readable.from(bytes, { objectMode: false }))
    },
  )

  app.get(
    '/models/:model/provenance',
    {
      schema: {
        operationId: 'retrieveModelProvenance',
        summary: 'Retrieves the signed statement on a model.',
        tags,
        params: ModelParams,
        response: { 200: Type.Ref('ModelStatement#') },
      },
    },
    async ({ caller, params }) => {
      const { statement, signature } = await provenance.statement(caller.project_id, params.model)
      return { statement: { ...statement }, signature }
    },
  )

  app.get(
    '/models/:model/lineage',
    {
      schema: {
        operationId: 'retrieveModelLineage',
        summary: 'Lists the model and all that it was made of.',
        tags,
        params: ModelParams,
        response: { 200: LineageList },
      },
    },
    async ({ caller, params }) => ({
      object: 'list' as const,
      data: (await provenance.lineage(caller.project_id, params.model)).map(presentAncestor),
    }),
  )

  app.get(
    '/provenance/models',
    {
      schema: {
        operationId: 'listModelsOfData',
        summary: 'Lists the models that learned from a file or from a row.',
        tags,
        querystring: LineageQuery,
        response: { 200: LineageList },
      },
    },
    async ({ caller, query }) => {
      refuseNothing(query)
      const found = await provenance.models(caller.project_id, query)
      return { object: 'list' as const, data: found.map(presentAncestor) }
    },
  )

  app.get(
    '/provenance/completions',
    {
      schema: {
        operationId: 'listCompletionsOfData',
        summary:
          'Lists the kept answers of all models that learned from a file or from a row, newest first.',
        tags,
        querystring: AnswersQuery,
        response: { 200: AnswerList },
      },
    },
    async ({ caller, query: { after, limit = DEFAULT_LIMIT, ...of } }) => {
      refuseNothing(of)
      const found = await provenance.answers(caller.project_id, { ...of, after, limit })
      return presentPage(cutPage(found.map(presentAnswer), limit))
    },
  )

  app.get(
    '/provenance/key',
    {
      schema: {
        operationId: 'retrieveProvenanceKey',
        summary: 'Retrieves the public key that statements are signed with.',
        tags,
        response: { 200: KeyReply },
      },
    },
    async () => {
      const { key_id, public_key } = await provenance.key()
      return {
        object: 'provenance.key' as const,
        algorithm: 'ed25519' as const,
        key_id,
        public_key,
      }
    },
  )
}
