// The errors a caller can mend, in OpenAI's words. Everything else is a plain Error and reads as a 500.

export interface ErrorWhere {
  param?: string | null
  code?: string | null
}

/** An error the caller can mend; the wire body is `{ error: { message, type, param, code } }`. */
export class ApiError extends Error {
  override readonly name = 'ApiError'
  readonly status: number
  readonly type: string
  readonly param: string | null
  readonly code: string | null
  readonly headers: Record<string, string>

  constructor(
    status: number,
    message: string,
    details: ErrorWhere & { type?: string; headers?: Record<string, string> } = {},
  ) {
    super(message)
    this.status = status
    this.type = details.type ?? (status >= 500 ? 'server_error' : 'invalid_request_error')
    this.param = details.param ?? null
    this.code = details.code ?? null
    this.headers = details.headers ?? {}
  }
}

/** 400: the request itself is wrong; `param` is a dotted path into it. */
export const invalidRequest = (message: string, where: ErrorWhere = {}) =>
  new ApiError(400, message, where)

/** 404 for any object but a model. */
export const notFound = (message: string, where: ErrorWhere = {}) =>
  new ApiError(404, message, where)

/** 404 in the words clients look for. */
export const modelNotFound = (model: string) =>
  new ApiError(404, `The model \`${model}\` does not exist or you do not have access to it.`, {
    param: 'model',
    code: 'model_not_found',
  })

/** 429 with `Retry-After` in seconds: there is no place now, and soon there will be. */
export const overloaded = (message: string, retryAfter = 1) =>
  new ApiError(429, message, {
    type: 'rate_limit_error',
    code: 'rate_limit_exceeded',
    headers: { 'retry-after': String(retryAfter) },
  })

/** 507: trying again helps when somebody has made room. */
export const noRoom = (message: string) =>
  new ApiError(507, message, { type: 'server_error', code: 'insufficient_storage' })

/** Whether a file could not be written for want of room; also where the error came from a thread as its text. */
export const isDiskFull = (error: unknown): boolean =>
  error instanceof Error && /\b(ENOSPC|EDQUOT|EFBIG)\b/.test(error.message)

/** 503 with `Retry-After` in seconds. */
export const unavailable = (message: string, retryAfter = 1) =>
  new ApiError(503, message, { headers: { 'retry-after': String(retryAfter) } })
