// The only place that turns an error into a reply: { error: { message, type, param, code } }.

import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { ApiError, invalidRequest, unavailable } from '../../errors.ts'
import { isDatabaseAway, isUnstorableText } from '../db/pool.ts'
import { ObjectCorrupt, ObjectMissing, StoreUnavailable } from '../storage/object-store.ts'

/** What every failed request is answered with. */
export const ErrorBody = Type.Object(
  {
    error: Type.Object({
      message: Type.String(),
      type: Type.String(),
      param: Type.Union([Type.String(), Type.Null()]),
      code: Type.Union([Type.String(), Type.Null()]),
    }),
  },
  { $id: 'Error', description: 'What went wrong, in the words of the OpenAI API.' },
)

export type ErrorBody = Type.Static<typeof ErrorBody>

const INTERNAL = new ApiError(
  500,
  'The server had an error while processing your request. The log has the details under the request id.',
)

const DAMAGED = new ApiError(
  500,
  'What the server has stored of this is damaged or gone: it has to come back from a backup. The log names it under the request id.',
  { code: 'stored_object_damaged', headers: { 'x-should-retry': 'false' } },
)

/** The body of the reply for an error that was already read by `toApiError`. */
export const errorBody = ({ message, type, param, code }: ApiError): ErrorBody => ({
  error: { message, type, param, code },
})

/** What the caller is told: its own words for what they can mend, nothing of anything else. */
export const toApiError = (error: unknown): ApiError => {
  if (error instanceof ApiError) return error
  if (error instanceof StoreUnavailable)
    return unavailable('The object store cannot be reached. Please retry shortly.', 5)
  if (error instanceof ObjectCorrupt || error instanceof ObjectMissing) return DAMAGED
  if (isDatabaseAway(error))
    return unavailable('The database cannot be reached. Please retry shortly.', 5)
  // All text of a request that reaches the database is the client's own.
  if (isUnstorableText(error))
    return invalidRequest(
      'The request holds a character that is no text: NUL, or half of a surrogate pair.',
      { code: 'invalid_value' },
    )
  const { code, statusCode } = error as Partial<FastifyError>
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new ApiError(413, 'The request body is too large.', { code: 'request_too_large' })
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
    case 'FST_INVALID_MULTIPART_CONTENT_TYPE':
      return new ApiError(415, 'Unsupported content type for this request.', {
        code: 'unsupported_content_type',
      })
    case 'FST_ERR_CTP_INVALID_JSON_BODY':
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
      return badJson()
    case 'FST_ERR_BAD_URL':
      return invalidRequest('The URL of the request cannot be read.')
    default:
  }
  if (error instanceof SyntaxError && statusCode === 400) return badJson()
  // What Fastify and its plugins refuse (a cut body, a wrong length) is the client's to mend.
  if (code?.startsWith('FST_') && statusCode !== undefined && statusCode < 500)
    return new ApiError(statusCode, (error as Error).message)
  return INTERNAL
}

const badJson = () =>
  invalidRequest(
    'We could not parse the JSON body of your request. (HINT: the API expects a JSON payload, but what was sent was not valid JSON.)',
  )

/** Sets the handlers for errors and for URLs that lead nowhere. */
export const handleErrors = (app: FastifyInstance): void => {
  app.setErrorHandler((error, request, reply) => sendError(error, request, reply))
  app.setNotFoundHandler((request, reply) => {
    const [path] = request.url.split('?')
    return sendError(
      new ApiError(404, `Invalid URL (${request.method} ${path})`, { code: 'unknown_url' }),
      request,
      reply,
    )
  })
}

/** Replies with the error; one that is not the caller's is logged with all it knows. */
export const sendError = (error: unknown, request: FastifyRequest, reply: FastifyReply) => {
  const told = toApiError(error)
  logError(error, told, request)
  return reply
    .code(told.status)
    .headers(told.headers)
    .type('application/json; charset=utf-8')
    .send(JSON.stringify(errorBody(told)))
}

/** One line for what the caller cannot mend; what they can is in the request's own line. */
export const logError = (error: unknown, told: ApiError, request: FastifyRequest): void => {
  if (told.status >= 500 && !(error instanceof ApiError))
    request.log.error({ err: error }, 'request failed')
}
