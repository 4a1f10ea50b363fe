// Cursor lists: `after` (the last id seen) and `limit`; a page knows whether more follows.

import { Type } from 'typebox'
import { invalidRequest } from '../../errors.ts'

/** The query of a list: `limit` from 1 to `maximum`, `after`. */
export const cursorQuery = (limits: { default: number; maximum: number }) =>
  Type.Object({
    after: Type.Optional(
      Type.String({ description: 'The id of the last object of the page before.' }),
    ),
    limit: Type.Optional(
      Type.Integer({ minimum: 1, maximum: limits.maximum, default: limits.default }),
    ),
  })

export interface Page<Item> {
  readonly data: Item[]
  readonly has_more: boolean
}

/** Makes the page of `limit` items out of the `limit + 1` that the query asked for. */
export const cutPage = <Item>(rows: readonly Item[], limit: number): Page<Item> => ({
  data: rows.slice(0, limit),
  has_more: rows.length > limit,
})

/** The reply of a list; `first_id` and `last_id` of an empty one are null. */
export const presentPage = <Item extends { id: string }>(page: Page<Item>) => ({
  object: 'list' as const,
  data: page.data,
  first_id: page.data[0]?.id ?? null,
  last_id: page.data.at(-1)?.id ?? null,
  has_more: page.has_more,
})

/** 400 for an `after` that names nothing in this list. */
export const unknownCursor = (after: string) =>
  invalidRequest(`Invalid 'after': no object with id '${after}' in this list.`, {
    param: 'after',
    code: 'invalid_value',
  })
