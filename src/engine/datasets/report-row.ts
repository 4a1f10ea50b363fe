// How a row's mistakes are written down: line, JSON pointer, check, and words that go on from "Example 3".

import type { RowError } from './example.ts'

/** Collects one row's errors. */
export interface RowReport {
  readonly errors: readonly RowError[]
  add(check: string, pointer: string, message: string): void
}

/**
 * A message reads on from "Example 100" or, where the pointer leads into a message, "Example 100, message 2":
 * "Discriminator 'role' is missing in value".
 */
export function reportRow(line: number): RowReport {
  const errors: RowError[] = []
  return {
    errors,
    add(check, pointer, message) {
      errors.push({ line, pointer, check, message })
    },
  }
}

/** An object that is no list. */
export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** A key as a JSON pointer's last part. */
export const pointerTo = (key: string) =>
  `/${key.slice(0, 200).replaceAll('~', '~0').replaceAll('/', '~1')}`

const SHOWN = 60

/** A value found in a row, short enough for a message. */
export function shown(value: unknown): string {
  if (typeof value === 'string')
    return JSON.stringify(value.length > SHOWN ? `${value.slice(0, SHOWN)}…` : value)
  if (value === null || typeof value === 'number' || typeof value === 'boolean')
    return String(value)
  return Array.isArray(value) ? 'a list' : 'an object'
}
