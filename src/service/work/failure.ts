// Why work has failed, in the three words that its `error` keeps.

import { ApiError } from '../../errors.ts'

export interface Failure {
  readonly code: string
  readonly message: string
  readonly param: string | null
}

/** What the caller can mend is told as it is; of anything else, that `the job` failed, and where the rest is said. */
export const failureOf = (cause: unknown, what: string): Failure =>
  cause instanceof ApiError
    ? { code: cause.code ?? 'invalid_request', message: cause.message, param: cause.param }
    : {
        code: 'server_error',
        message: `The ${what} failed due to an internal error. The log of the server has the details under the id of the ${what}.`,
        param: null,
      }
