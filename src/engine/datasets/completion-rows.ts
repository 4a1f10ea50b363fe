// Rows of a prompt and its completion, for models that have no chat.

import type { Tokenizer } from '../tokenizer/tokenizer.ts'
import type { EncodedRow, Format } from './format.ts'

export const completionRows: Format = {
  name: 'completion',
  method: 'supervised',
  shape: 'prompt/completion pairs',
  marks: ['prompt', 'completion'],

  check(row, report) {
    for (const key of ['prompt', 'completion'])
      if (!(key in row)) report.add(`missing_${key}`, '', `is missing the key '${key}'`)
      else if (typeof row[key] !== 'string')
        report.add('data_type', `/${key}`, `has a '${key}' that is not a string`)
    if (row.completion === '')
      report.add('missing_completion', '/completion', "has an empty 'completion'")
  },

  encode: (row, { tokenizer }) =>
    encodeCompletion(tokenizer, String(row.prompt), String(row.completion)),
}

/** Tokens of a plain prompt: what serving sends, and what every row with this prompt begins with. */
export const encodePrompt = (tokenizer: Tokenizer, prompt: string): number[] =>
  tokenizer.encode(prompt, { special: true })

function encodeCompletion(tokenizer: Tokenizer, prompt: string, completion: string): EncodedRow {
  const tokens = encodePrompt(tokenizer, prompt)
  const learnedFrom = tokens.length
  const last = tokens.at(-1)
  const continues = last !== undefined && !tokenizer.isSpecial(last)
  for (const id of tokenizer.encode(completion, { continues })) tokens.push(id)
  const end = tokenizer.eos_token_ids[0]
  if (end !== undefined && tokens.at(-1) !== end) tokens.push(end)
  return { tokens, weights: tokens.map((_, i) => (i < learnedFrom ? 0 : 1)), skipped: 0 }
}
