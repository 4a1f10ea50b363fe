// Fields of what was sent, each checked by its name. Throws ApiErrors.

import { invalidRequest } from '../../errors.ts'

export type Json = Readonly<Record<string, unknown>>

export function record(value: unknown, param: string): Json {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json
  throw bad(param, 'Expected an object')
}

export function list(value: unknown, param: string): readonly unknown[] {
  if (Array.isArray(value) && value.length > 0) return value
  throw bad(param, 'Expected a list')
}

export function text(value: unknown, param: string): string {
  if (typeof value === 'string' && value !== '') return value
  throw bad(param, `Expected a text, found ${JSON.stringify(value)}`)
}

/** Finite; as text too, for YAML 1.1 reads 1e-5 as text. */
export function number(value: unknown, param: string): number {
  const found = typeof value === 'number' || typeof value === 'string' ? Number(value) : Number.NaN
  if (Number.isFinite(found) && value !== '') return found
  throw bad(param, `Expected a number, found ${JSON.stringify(value)}`)
}

export function whole(value: unknown, param: string): number {
  const number = Number(value)
  if (Number.isSafeInteger(number) && number >= 0) return number
  throw bad(param, `Expected a whole number, found ${JSON.stringify(value)}`)
}

export function only(value: Json, known: readonly string[], at: string): void {
  for (const key of Object.keys(value))
    if (!known.includes(key))
      throw bad(`${at}${key}`, 'There is no such field', 'unknown_parameter')
}

export const bad = (param: string, why: string, code = 'invalid_value') =>
  invalidRequest(`Invalid '${param}': ${why}.`, { param, code })
