// Uploads in parts: create, add a part, complete, cancel.

import multipart from '@fastify/multipart'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Uploads } from '../../files/uploads.ts'
import {
  CompleteUpload,
  CreateUpload,
  PartForm,
  presentPart,
  presentUpload,
  UploadObject,
  UploadParams,
  UploadPart,
} from '../schemas/uploads.ts'
import { checkFields, readForm } from '../upload.ts'

export interface UploadRoutesDeps {
  readonly uploads: Uploads
}

const tags = ['Uploads']
const NoFields = Type.Object({}, { additionalProperties: false })

export const uploadRoutes: FastifyPluginAsyncTypebox<UploadRoutesDeps> = async (
  app,
  { uploads },
) => {
  await app.register(multipart, { limits: { fileSize: Number.POSITIVE_INFINITY } })
  for (const schema of [UploadObject, UploadPart, PartForm]) app.addSchema(schema)

  app.post(
    '/uploads',
    {
      schema: {
        operationId: 'createUpload',
        tags,
        summary: 'Begin an upload in parts',
        body: CreateUpload,
        response: { 200: Type.Ref('Upload#') },
      },
    },
    async ({ caller, body }) => {
      const { expires_after, ...request } = body
      return presentUpload(
        await uploads.create(caller.project_id, {
          ...request,
          expires_after_seconds: expires_after?.seconds,
        }),
      )
    },
  )

  app.post(
    '/uploads/:upload_id/parts',
    {
      // The form is read as it comes, in readForm; there is no body to hold against the schema.
      validatorCompiler: () => () => true,
      schema: {
        operationId: 'addUploadPart',
        tags,
        summary: 'Add a part; several may come at once',
        consumes: ['multipart/form-data'],
        params: UploadParams,
        body: Type.Ref('AddUploadPart#'),
        response: { 200: Type.Ref('UploadPart#') },
      },
    },
    async (request) => {
      const { project_id } = request.caller
      const { upload_id } = request.params
      const form = await readForm(
        request,
        (body) => uploads.receivePart(project_id, upload_id, body),
        (staged) => staged.discard(),
        'data',
      )
      try {
        checkFields(NoFields, form.fields)
        return presentPart(await uploads.addPart(project_id, upload_id, form.file))
      } finally {
        await form.file.discard()
      }
    },
  )

  app.post(
    '/uploads/:upload_id/complete',
    {
      schema: {
        operationId: 'completeUpload',
        tags,
        summary: 'Make a file of the parts, in this order',
        params: UploadParams,
        body: CompleteUpload,
        response: { 200: Type.Ref('Upload#') },
      },
    },
    async ({ caller, params, body }) => {
      const { upload, file } = await uploads.complete(caller.project_id, params.upload_id, body)
      return presentUpload(upload, file)
    },
  )

  app.post(
    '/uploads/:upload_id/cancel',
    {
      schema: {
        operationId: 'cancelUpload',
        tags,
        summary: 'Cancel an upload; what was sent is forgotten',
        params: UploadParams,
        response: { 200: Type.Ref('Upload#') },
      },
    },
    async ({ caller, params }) =>
      presentUpload(await uploads.cancel(caller.project_id, params.upload_id)),
  )
}
