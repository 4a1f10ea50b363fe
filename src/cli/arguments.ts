// How the command line reads numbers.

import { InvalidArgumentError } from 'commander'

/** A finite number. */
export function number(text: string): number {
  const value = Number(text)
  if (text.trim() !== '' && Number.isFinite(value)) return value
  throw new InvalidArgumentError('expected a number')
}

/** A whole number, 0 or more. */
export function integer(text: string): number {
  const value = number(text)
  if (Number.isInteger(value) && value >= 0) return value
  throw new InvalidArgumentError('expected a whole number')
}

/** A number, or the word `auto`. */
export const autoOrNumber = (text: string): number | 'auto' =>
  text === 'auto' ? 'auto' : number(text)
