// Files: create, list, retrieve, delete, content.

import multipart from '@fastify/multipart'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Files, Purpose } from '../../files/files.ts'
import { cutPage, presentPage, unknownCursor } from '../pagination.ts'
import {
  DeletedFile,
  FileList,
  FileListQuery,
  FileObject,
  FileParams,
  presentFile,
  UploadFields,
  UploadForm,
} from '../schemas/files.ts'
import { checkFields, readForm } from '../upload.ts'

export interface FilesRoutesDeps {
  readonly files: Files
}

const tags = ['Files']
const rawBytes = {
  'application/octet-stream': {
    schema: Type.Unsafe<unknown>({
      type: 'string',
      contentMediaType: 'application/octet-stream',
    }),
  },
}

export const filesRoutes: FastifyPluginAsyncTypebox<FilesRoutesDeps> = async (app, { files }) => {
  await app.register(multipart, { limits: { fileSize: Number.POSITIVE_INFINITY } })
  for (const schema of [FileObject, FileList, DeletedFile, UploadForm]) app.addSchema(schema)

  app.post(
    '/files',
    {
      // The form is read as it comes, in readForm; there is no body to hold against the schema.
      validatorCompiler: () => () => true,
      schema: {
        operationId: 'createFile',
        tags,
        summary: 'Upload a file',
        consumes: ['multipart/form-data'],
        body: Type.Ref('CreateFile#'),
        response: { 200: Type.Ref('File#') },
      },
    },
    async (request) => {
      const { project_id } = request.caller
      const form = await readForm(
        request,
        (body) => files.receive(project_id, body),
        ({ staged }) => staged.discard(),
      )
      try {
        const { purpose, expires_after } = checkFields<{
          purpose: Purpose
          expires_after?: { seconds: number }
        }>(UploadFields, form.fields)
        const { filename, file } = form
        const row = { filename, purpose, expires_after_seconds: expires_after?.seconds }
        return presentFile(await files.create(project_id, row, file))
      } finally {
        await form.file.staged.discard()
      }
    },
  )

  app.get(
    '/files',
    {
      schema: {
        operationId: 'listFiles',
        tags,
        summary: 'List files, the newest first',
        querystring: FileListQuery,
        response: { 200: Type.Ref('FileList#') },
      },
    },
    async ({ caller, query }) => {
      const { after, purpose, limit = 10_000, order = 'desc' } = query
      const rows = await files.list(caller.project_id, { after, purpose, limit, order })
      if (!rows) throw unknownCursor(after ?? '')
      return presentPage(cutPage(rows.map(presentFile), limit))
    },
  )

  app.get(
    '/files/:file_id',
    {
      schema: {
        operationId: 'retrieveFile',
        tags,
        summary: 'Retrieve a file',
        params: FileParams,
        response: { 200: Type.Ref('File#') },
      },
    },
    async ({ caller, params }) =>
      presentFile(await files.retrieve(caller.project_id, params.file_id)),
  )

  app.delete(
    '/files/:file_id',
    {
      schema: {
        operationId: 'deleteFile',
        tags,
        summary: 'Delete a file',
        params: FileParams,
        response: { 200: Type.Ref('DeletedFile#') },
      },
    },
    async ({ caller, params }) => {
      await files.delete(caller.project_id, params.file_id)
      return { id: params.file_id, object: 'file' as const, deleted: true as const }
    },
  )

  app.get(
    '/files/:file_id/content',
    {
      schema: {
        operationId: 'retrieveFileContent',
        tags,
        summary: 'Download the bytes of a file',
        params: FileParams,
        response: { 200: { description: 'The bytes as they were uploaded.', content: rawBytes } },
      },
    },
    async ({ caller, params }, reply) => {
      const file = await files.retrieve(caller.project_id, params.file_id)
      return reply
        .header('content-type', contentType(file.filename))
        .header('content-length', file.bytes)
        .header('content-disposition', disposition(file.filename))
        .send(await files.content(file))
    },
  )
}

const contentType = (filename: string): string => {
  if (filename.endsWith('.jsonl')) return 'application/jsonl'
  if (filename.endsWith('.csv')) return 'text/csv; charset=utf-8'
  return 'application/octet-stream'
}

/** RFC 6266: a plain name for old clients, the true one for the others. */
const disposition = (filename: string): string => {
  const plain = filename.replace(/[^\w .-]/g, '_')
  const exact = encodeURIComponent(filename).replace(
    /['()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16)}`,
  )
  return `attachment; filename="${plain}"; filename*=UTF-8''${exact}`
}
