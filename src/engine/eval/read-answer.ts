// What a model's answer means: the label it chose, the score it gave.

import { GradeError } from './grader.ts'

/**
 * The label that the answer is, quotes, case and a full stop aside; else the only one that it mentions as a word. A
 * label inside a longer one that is mentioned (`card` in `lost card`) does not count.
 */
export function readLabel(answer: string, labels: readonly string[]): string {
  const plain = (text: string) =>
    text
      .trim()
      .replace(/^["'`*\s]+|["'`*.!\s]+$/g, '')
      .toLowerCase()
  const exact = labels.find((label) => plain(label) === plain(answer))
  if (exact !== undefined) return exact
  const text = ` ${answer.toLowerCase().replace(/[^\p{L}\p{N}_-]+/gu, ' ')} `
  const mentioned = labels.filter((label) => {
    const word = label
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_-]+/gu, ' ')
      .trim()
    return word !== '' && text.includes(` ${word} `)
  })
  const whole = mentioned.filter(
    (label) =>
      !mentioned.some(
        (other) => other !== label && other.toLowerCase().includes(label.toLowerCase()),
      ),
  )
  if (whole.length === 1) return whole[0]!
  throw new GradeError(
    'model_grader_parse_error',
    `The model's answer ${whole.length === 0 ? 'is none of the labels' : `names ${whole.length} labels`}: ${quoted(answer)}`,
  )
}

/** The number that the answer is or holds: `result` or `score` of a JSON object, else the first in the text. */
export function readScore(answer: string, [least, most]: readonly [number, number]): number {
  const score = fromJson(answer) ?? firstNumber(answer)
  if (score === undefined)
    throw new GradeError(
      'model_grader_parse_error',
      `The model's answer holds no number: ${quoted(answer)}`,
    )
  if (score < least || score > most)
    throw new GradeError(
      'model_grader_parse_error',
      `The model gave ${score}, expected a score from ${least} to ${most}: ${quoted(answer)}`,
    )
  return score
}

function fromJson(answer: string): number | undefined {
  try {
    const value = JSON.parse(answer) as unknown
    if (typeof value === 'number') return value
    const { result, score } = (value ?? {}) as { result?: unknown; score?: unknown }
    return [result, score].find((x): x is number => typeof x === 'number')
  } catch {
    return undefined
  }
}

function firstNumber(answer: string): number | undefined {
  const text = /[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?/.exec(answer)?.[0]
  return text === undefined ? undefined : Number(text)
}

const quoted = (text: string) => JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text)
