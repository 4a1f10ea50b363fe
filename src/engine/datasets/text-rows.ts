// Rows of plain text, every token of which is learned: continued pre-training.

import { encodePrompt } from './completion-rows.ts'
import type { Format } from './format.ts'

export const textRows: Format = {
  name: 'text',
  method: 'supervised',
  marks: ['text'],

  check(row, report) {
    if (typeof row.text !== 'string')
      report.add('data_type', '/text', "has a 'text' that is not a string")
    else if (row.text === '') report.add('missing_text', '/text', "has an empty 'text'")
    for (const key of ['label', 'labels', 'spans'])
      if (key in row)
        report.add(
          'unrecognized_key',
          `/${key}`,
          `has '${key}', which belongs to the method 'classification'`,
        )
  },

  /** What the tokenizer puts before a text is its beginning; the end of the sequence is learned as its end. */
  encode(row, { tokenizer }) {
    const tokens = encodePrompt(tokenizer, String(row.text))
    const end = tokenizer.eos_token_ids[0]
    if (end !== undefined && tokens.at(-1) !== end) tokens.push(end)
    return { tokens, weights: tokens.map(() => 1), skipped: 0 }
  },
}
