// Ids carry their kind, as clients expect: `file-…`, `ftjob-…`, `proj_…`.

import { randomInt } from 'node:crypto'

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** So many random letters and digits; 24 hold 142 bits. */
export const randomLetters = (length: number): string => {
  let text = ''
  for (let i = 0; i < length; i++) text += ALPHABET[randomInt(ALPHABET.length)]
  return text
}

/** A new id: `newId('file-')`. */
export const newId = (prefix: string): string => prefix + randomLetters(24)
