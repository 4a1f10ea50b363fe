// A place in a list, as OpenAI's lists have it.

import { invalidRequest } from '../errors.ts'

export interface Cursor {
  /** The id of the last object that the client has. */
  after?: string | undefined
  limit: number
}

export const badCursor = (after: string) =>
  invalidRequest(`Invalid 'after': no object with id '${after}' in this list.`, {
    param: 'after',
    code: 'invalid_value',
  })
