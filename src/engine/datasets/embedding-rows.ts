// Rows of texts that belong together: an anchor, its positive, and one that looks alike and is none.

import type { Format } from './format.ts'

export const embeddingRows: Format = {
  name: 'embedding',
  method: 'embedding',
  shape: 'anchor/positive texts',
  marks: ['anchor', 'positive', 'negative'],

  check(row, report) {
    for (const key of ['anchor', 'positive', 'negative']) {
      const text = row[key]
      if (text === undefined) {
        if (key !== 'negative') report.add(`missing_${key}`, '', `is missing the key '${key}'`)
      } else if (typeof text !== 'string')
        report.add('data_type', `/${key}`, `has a '${key}' that is not a string`)
      else if (text.trim() === '') report.add(`missing_${key}`, `/${key}`, `has an empty '${key}'`)
    }
  },
}
