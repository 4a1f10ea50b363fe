import { expect, test } from 'vitest'
import { checkGrader } from '../../../../src/engine/eval/check.ts'
import { parseFormula } from '../../../../src/engine/eval/formula.ts'
import { grade, questions } from '../../../../src/engine/eval/grade.ts'
import { type Grader, type SingleGrader, sampleOf } from '../../../../src/engine/eval/grader.ts'
import { mistakeOf } from '../../../../src/engine/eval/items.ts'
import { readLabel, readScore } from '../../../../src/engine/eval/read-answer.ts'
import { commonSubsequence } from '../../../../src/engine/eval/similarity/common-subsequence.ts'
import { checkTemplate, MAX_RENDERED, render } from '../../../../src/engine/eval/template.ts'

const subject = {
  item: { label: 'lost_card', choices: [{ text: 'a' }], n: 3, empty: '' },
  sample: sampleOf('{"answer": "lost_card"}'),
}

test.each([
  ['{{item.label}}', 'lost_card'],
  ['{{ item.choices[0].text }}-{{item.choices}}', 'a-[{"text":"a"}]'],
  ['{{item.n}}{{item.empty}}', '3'],
  ['{{ sample.output_json.answer }}', 'lost_card'],
  ['no placeholder, {one brace}', 'no placeholder, {one brace}'],
])('a template takes %s from the row', (template, expected) => {
  expect(render(template, subject)).toBe(expected)
})

test.each(['item.toString', 'item.__proto__', 'item.label.length', 'item.missing'])(
  'there is no %s in a row',
  (path) => {
    expect(() => render(`{{${path}}}`, subject)).toThrow(/There is no/)
  },
)

test('a template that grows without end is stopped, and one that is no path is refused', () => {
  const big = { ...subject, item: { text: 'x'.repeat(100_000) } }
  expect(() => render('{{item.text}}'.repeat(100), big)).toThrow(`longer than ${MAX_RENDERED}`)
  expect(() => checkTemplate('{{ 1 + 1 }}', 'input')).toThrow(/names neither/)
  expect(() => checkTemplate('{{ process.env }}', 'input')).toThrow(/names neither/)
})

test.each([
  ['1 + 2 * 3', 7],
  ['-2 ^ 2', -4],
  ['2 ** 3 ^ 0.5', 2 ** (3 ** 0.5)],
  ['(a + b) / 2', 0.5],
  ['max(a, b, 0.2) - min(a, b)', 1],
  ['sqrt(abs(-9)) + floor(1.9) + ceil(0.1)', 5],
  ['exp(log(5)) % 3', 2],
  ['1e-1*a', 0.1],
])('a formula gives %s', (text, expected) => {
  expect(parseFormula(text).evaluate({ a: 1, b: 0 })).toBeCloseTo(expected, 12)
})

test.each([
  ['0.5 * a +  0.5 * b)', /unexpected \) at character 19/],
  ['a +', /unexpected the end/],
  ['process.exit(1)', /unexpected `\.`/],
  ['constructor(1)', /no function `constructor`/],
  ['abs(1, 2)', /takes one value, found 2/],
  [`${'('.repeat(200)}1${')'.repeat(200)}`, /nested/],
  ['-'.repeat(1000), /nested/],
  ['', /unexpected the end/],
])('a formula that is none is refused: %s', (text, message) => {
  expect(() => parseFormula(text)).toThrow(message)
})

test('a formula that gives no number, or names no grader, says so', () => {
  expect(() => parseFormula('1 / a').evaluate({ a: 0 })).toThrow(/gave Infinity/)
  expect(() => parseFormula('toString').evaluate({})).toThrow(/there is no such grader/)
})

const check = (operation: 'eq' | 'ne' | 'like' | 'ilike', input: string): SingleGrader => ({
  type: 'string_check',
  name: 'check',
  input,
  reference: 'Card',
  operation,
})
test.each([
  ['eq', 'Card', 1],
  ['eq', 'card', 0],
  ['ne', 'card', 1],
  ['like', 'my Card is', 1],
  ['like', 'my card is', 0],
  ['ilike', 'my card is', 1],
  ['like', '%', 0],
] as const)('string_check %s of %s', async (operation, input, score) => {
  const found = await grade(check(operation, input), subject, {})
  expect(found).toEqual({ score, passed: score === 1, sub: {} })
})

test('a multi grader calculates over its own, and asks what they ask', async () => {
  const grader: Grader = {
    type: 'multi',
    name: 'both',
    graders: {
      exact: check('eq', '{{sample.output_text}}'),
      judge: {
        type: 'score_model',
        name: 'judge',
        model: 'tiny',
        input: [{ role: 'developer', content: [{ type: 'input_text', text: '{{item.label}}?' }] }],
        range: [0, 10],
      },
    },
    calculate_output: '0.5 * exact + 0.05 * judge',
    pass_threshold: 0.4,
  }
  await checkGrader(grader, 'grader')
  expect(questions(grader, subject)).toEqual([
    {
      type: 'chat',
      key: 'judge',
      model: 'tiny',
      messages: [{ role: 'system', content: 'lost_card?' }],
      temperature: 0,
      top_p: 1,
      seed: 42,
      max_tokens: 512,
    },
  ])
  const said = { judge: { type: 'chat' as const, model: 'tiny', output_text: 'I give it 8.' } }
  const found = await grade(grader, subject, said)
  expect(found).toMatchObject({ score: 0.4, passed: true, sub: { exact: 0, judge: 8 } })
})

test('a python grader is refused, and the refusal says what to use instead', async () => {
  const python: Grader = { type: 'python', name: 'p', source: 'def grade(s, i): return 1' }
  await expect(checkGrader(python, 'grader')).rejects.toMatchObject({
    status: 400,
    code: 'unsupported_grader',
    param: 'grader',
    message: expect.stringContaining('javascript'),
  })
})

test('a formula that names no grader, an image and a wrong label are refused with their places', async () => {
  const multi: Grader = {
    type: 'multi',
    name: 'm',
    graders: [check('eq', 'a')],
    calculate_output: 'check * other',
  }
  await expect(checkGrader(multi, 'grader')).rejects.toMatchObject({
    param: 'grader.calculate_output',
    message: expect.stringContaining("no grader 'other'"),
  })
  const label: Grader = {
    type: 'label_model',
    name: 'l',
    model: 'tiny',
    input: [{ role: 'user', content: [{ type: 'input_image' }] }],
    labels: ['a'],
    passing_labels: ['b'],
  }
  await expect(checkGrader(label, 'g')).rejects.toMatchObject({ param: 'g.input[0].content' })
  await expect(checkGrader({ ...label, input: [] }, 'g')).rejects.toMatchObject({
    param: 'g.passing_labels',
  })
})

test.each([
  [' "Positive". ', 'positive'],
  ['The label is lost card, I think', 'lost card'],
  ['card', 'card'],
])('the label of %s', (answer, label) => {
  expect(readLabel(answer, ['positive', 'card', 'lost card'])).toBe(label)
})

test('an answer without a label, with two, or with a score out of range is an error', () => {
  expect(() => readLabel('hm', ['a', 'b'])).toThrow(/none of the labels/)
  expect(() => readLabel('a or b', ['a', 'b'])).toThrow(/names 2 labels/)
  expect(readScore('{"steps": [], "result": 0.25}', [0, 1])).toBe(0.25)
  expect(readScore('Score: .5 of 1', [0, 1])).toBe(0.5)
  expect(() => readScore('7', [0, 1])).toThrow(/from 0 to 1/)
  expect(() => readScore('good', [0, 1])).toThrow(/no number/)
})

test('rows are held against the schema', () => {
  const schema = { type: 'object', properties: { a: { type: 'string' } }, required: ['a'] }
  expect(mistakeOf({ item: { a: 'x' } }, schema)).toBeUndefined()
  expect(mistakeOf({ item: { a: 1 } }, schema)).toBe("'item.a' must be string")
  expect(mistakeOf({ item: {} }, schema)).toMatch(/required/)
  expect(mistakeOf({ a: 'x' }, schema)).toBe("expected an object as 'item'")
})

test('the longest common subsequence is right across 32 places', () => {
  const random = (n: number, seed: number) =>
    Array.from({ length: n }, (_, i) => 'abcd'[(((i + seed) * 2654435761) % 2 ** 32) >>> 30]!)
  const slow = (a: string[], b: string[]) => {
    let row = new Array<number>(b.length + 1).fill(0)
    for (const x of a) {
      const next = [0]
      for (const [j, y] of b.entries())
        next.push(x === y ? row[j]! + 1 : Math.max(row[j + 1]!, next[j]!))
      row = next
    }
    return row.at(-1)
  }
  for (const [n, m] of [
    [31, 33],
    [32, 64],
    [100, 90],
    [65, 1],
    [0, 5],
  ] as const)
    expect(commonSubsequence(random(n, 1), random(m, 7))).toBe(slow(random(n, 1), random(m, 7)))
})
