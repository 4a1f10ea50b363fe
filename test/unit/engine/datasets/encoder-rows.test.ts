import { describe, expect, test } from 'vitest'
import { checkRow } from '../../../../src/engine/datasets/rows.ts'
import {
  bioLabels,
  bioOfWords,
  spansOfBio,
  wordsOf,
} from '../../../../src/engine/datasets/words.ts'

const found = (row: unknown, format: 'classification' | 'embedding' = 'classification') =>
  checkRow(3, row, undefined, [format]).errors.map(({ check, pointer }) =>
    `${check} ${pointer}`.trim(),
  )

describe('rows to classify', () => {
  test.each([
    ['one label', { text: 'a', label: 'x' }],
    ['two texts', { text: 'a', text_pair: 'b', label: 'x' }],
    ['several labels', { text: 'a', labels: ['x', 'y'] }],
    ['no label that applies', { text: 'a', labels: [] }],
    ['spans', { text: 'Ann and Bob', spans: [{ start: 0, end: 3, label: 'p' }] }],
    [
      'spans side by side',
      {
        text: 'ab',
        spans: [
          { start: 1, end: 2, label: 'p' },
          { start: 0, end: 1, label: 'q' },
        ],
      },
    ],
  ])('%s', (_, row) => expect(found(row)).toEqual([]))

  test.each([
    ['no text', { label: 'x' }, ['missing_text']],
    ['an empty text', { text: '', label: 'x' }, ['missing_text /text']],
    ['a text that is none', { text: 1, label: 'x' }, ['data_type /text']],
    ['nothing to learn', { text: 'a' }, ['missing_label']],
    ['two kinds of labels', { text: 'a', label: 'x', labels: [] }, ['invalid_label /labels']],
    ['a label that is no string', { text: 'a', label: 7 }, ['data_type /label']],
    ['an empty label', { text: 'a', label: ' ' }, ['invalid_label /label']],
    ['labels that are no list', { text: 'a', labels: 'x' }, ['data_type /labels']],
    ['a label twice', { text: 'a', labels: ['x', 'x'] }, ['invalid_label /labels/1']],
    [
      'a second text that is none',
      { text: 'a', text_pair: 1, label: 'x' },
      ['data_type /text_pair'],
    ],
    ['spans of two texts', { text: 'a', text_pair: 'b', spans: [] }, ['invalid_label /text_pair']],
    [
      'a span past the end',
      { text: 'ab', spans: [{ start: 1, end: 3, label: 'p' }] },
      ['invalid_span /spans/0'],
    ],
    [
      'an empty span',
      { text: 'ab', spans: [{ start: 1, end: 1, label: 'p' }] },
      ['invalid_span /spans/0'],
    ],
    [
      'a span without a label',
      { text: 'ab', spans: [{ start: 0, end: 1 }] },
      ['data_type /spans/0/label'],
    ],
    ['no object', { text: 'ab', spans: [3] }, ['invalid_span'].map(() => 'data_type /spans/0')],
    [
      'spans that overlap',
      {
        text: 'abc',
        spans: [
          { start: 0, end: 2, label: 'p' },
          { start: 1, end: 3, label: 'q' },
        ],
      },
      ['invalid_span /spans/1'],
    ],
  ])('%s is told with its place', (_, row, errors) => expect(found(row)).toEqual(errors))

  test('rows of another kind are told what is expected', () => {
    const { errors } = checkRow(1, { a: [] }, undefined, ['classification'])
    expect(errors[0]?.message).toBe(
      'has an unexpected file format, expected texts with a label, labels or spans.',
    )
  })
})

describe('rows of texts that belong together', () => {
  test.each([
    ['a pair', { anchor: 'a', positive: 'b' }, []],
    ['a triple', { anchor: 'a', positive: 'b', negative: 'c' }, []],
    ['no positive', { anchor: 'a' }, ['missing_positive']],
    ['an empty anchor', { anchor: ' ', positive: 'b' }, ['missing_anchor /anchor']],
    [
      'a negative that is no text',
      { anchor: 'a', positive: 'b', negative: 1 },
      ['data_type /negative'],
    ],
  ])('%s', (_, row, errors) => expect(found(row, 'embedding')).toEqual(errors))
})

describe('words and spans', () => {
  const text = 'Ann Lee (born 1980) met Bob.'

  test('words are runs of letters and digits; every other sign is one', () => {
    const words = wordsOf(text)
    expect(words.map(({ start, end }) => text.slice(start, end))).toEqual(
      'Ann,Lee,(,born,1980,),met,Bob,.'.split(','),
    )
    expect(words.map(({ from, end }) => text.slice(from, end)).join('')).toBe(text)
  })

  test('spans become labels of words, and words spans again', () => {
    const spans = [
      { start: 24, end: 27, label: 'person' },
      { start: 0, end: 7, label: 'person' },
      { start: 14, end: 18, label: 'year' },
    ]
    const labels = bioOfWords(wordsOf(text), spans)
    expect(labels).toEqual('B-person,I-person,O,O,B-year,O,O,B-person,O'.split(','))
    expect(spansOfBio(labels)).toEqual([
      { label: 'person', from: 0, to: 2 },
      { label: 'year', from: 4, to: 5 },
      { label: 'person', from: 7, to: 8 },
    ])
    expect(bioLabels(['person', 'year'])).toEqual(['O', 'B-person', 'I-person', 'B-year', 'I-year'])
  })

  test('an inside without a beginning begins a span, and so does one of another kind', () => {
    expect(spansOfBio(['I-a', 'I-b', 'B-b', 'I-b'])).toEqual([
      { label: 'a', from: 0, to: 1 },
      { label: 'b', from: 1, to: 2 },
      { label: 'b', from: 2, to: 4 },
    ])
  })
})
