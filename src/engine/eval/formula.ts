// `calculate_output`: arithmetic over the scores of named graders. Parsed once into a function; no code is run.

import { GradeError } from './grader.ts'

export interface Formula {
  /** The names that it reads. */
  readonly names: readonly string[]
  /** Throws `invalid_variable_error` where a name is missing, `other_error` where no number comes out. */
  evaluate(scores: Readonly<Record<string, number>>): number
}

type Node = (scores: Readonly<Record<string, number>>) => number

const FUNCTIONS: Record<
  string,
  { arity: [least: number, most: number]; f: (...x: number[]) => number }
> = {
  min: { arity: [1, 100], f: Math.min },
  max: { arity: [1, 100], f: Math.max },
  abs: { arity: [1, 1], f: Math.abs },
  floor: { arity: [1, 1], f: Math.floor },
  ceil: { arity: [1, 1], f: Math.ceil },
  exp: { arity: [1, 1], f: Math.exp },
  sqrt: { arity: [1, 1], f: Math.sqrt },
  log: { arity: [1, 1], f: Math.log },
}
const CONSTANTS: Record<string, number> = { e: Math.E, pi: Math.PI }

const MAX_LENGTH = 2000
const MAX_DEPTH = 50
const TOKEN = /\s*(?:(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|([A-Za-z_]\w*)|(\*\*|[-+*/%^(),]))/y

/**
 * Reads numbers, names, `+ - * / % ^`, parentheses, min, max, abs, floor, ceil, exp, sqrt and log. `^` binds most
 * tightly and to the right, a sign next. Throws `formula_parse_error` with the place of what is not understood.
 */
export function parseFormula(text: string): Formula {
  if (text.length > MAX_LENGTH)
    throw mistake(`it has ${text.length} characters, expected at most ${MAX_LENGTH}`)
  const parser = new Parser(tokensOf(text))
  const root = parser.whole()
  return {
    names: [...parser.names],
    evaluate(scores) {
      const value = root(scores)
      if (!Number.isFinite(value))
        throw new GradeError('other_error', `calculate_output gave ${value}, expected a number.`)
      return value
    },
  }
}

interface Token {
  kind: 'number' | 'name' | 'sign' | 'end'
  text: string
  at: number
}

function tokensOf(text: string): Token[] {
  const tokens: Token[] = []
  TOKEN.lastIndex = 0
  let at = 0
  while (text.slice(at).trim() !== '') {
    TOKEN.lastIndex = at
    const found = TOKEN.exec(text)
    if (!found) throw mistake(`unexpected \`${text.slice(at).trim()[0]}\``, at)
    const [, number, name, sign] = found
    at = TOKEN.lastIndex
    const kind = number !== undefined ? 'number' : name !== undefined ? 'name' : 'sign'
    const read = number ?? name ?? sign ?? ''
    tokens.push({ kind, text: read === '**' ? '^' : read, at: at - read.length })
  }
  return [...tokens, { kind: 'end', text: 'the end', at: text.length }]
}

class Parser {
  readonly #tokens: readonly Token[]
  readonly names = new Set<string>()
  #at = 0
  #depth = 0

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens
  }

  whole(): Node {
    const node = this.#sum()
    if (this.#token.kind !== 'end') throw this.#unexpected()
    return node
  }

  #sum(): Node {
    return this.#chain(['+', '-'], () => this.#product())
  }

  #product(): Node {
    return this.#chain(['*', '/', '%'], () => this.#signed())
  }

  #chain(signs: readonly string[], operand: () => Node): Node {
    let left = operand()
    while (this.#token.kind === 'sign' && signs.includes(this.#token.text)) {
      const sign = this.#take().text
      const [a, b] = [left, operand()]
      left = (scores) => apply(sign, a(scores), b(scores))
    }
    return left
  }

  #signed(): Node {
    const { text } = this.#token
    if (text !== '-' && text !== '+') return this.#power()
    this.#take()
    const node = this.#deeper(() => this.#signed())
    return text === '-' ? (scores) => -node(scores) : node
  }

  #power(): Node {
    const base = this.#atom()
    if (this.#token.text !== '^') return base
    this.#take()
    const exponent = this.#deeper(() => this.#signed())
    return (scores) => base(scores) ** exponent(scores)
  }

  #atom(): Node {
    const token = this.#take()
    if (token.kind === 'number') {
      const value = Number(token.text)
      return () => value
    }
    if (token.text === '(') {
      const node = this.#deeper(() => this.#sum())
      this.#expect(')')
      return node
    }
    if (token.kind !== 'name') throw this.#unexpected(token)
    return this.#token.text === '(' ? this.#call(token) : this.#variable(token)
  }

  #call({ text, at }: Token): Node {
    const known = Object.hasOwn(FUNCTIONS, text) ? FUNCTIONS[text] : undefined
    if (!known)
      throw mistake(
        `there is no function \`${text}\`, only ${Object.keys(FUNCTIONS).join(', ')}`,
        at,
      )
    this.#expect('(')
    const given: Node[] = [this.#deeper(() => this.#sum())]
    while (this.#token.text === ',') {
      this.#take()
      given.push(this.#deeper(() => this.#sum()))
    }
    this.#expect(')')
    const [least, most] = known.arity
    if (given.length < least || given.length > most)
      throw mistake(
        `\`${text}\` takes ${most === 1 ? 'one value' : 'values'}, found ${given.length}`,
        at,
      )
    return (scores) => known.f(...given.map((node) => node(scores)))
  }

  #variable({ text }: Token): Node {
    if (Object.hasOwn(CONSTANTS, text) && !this.names.has(text)) {
      const constant = CONSTANTS[text]!
      return (scores) => (Object.hasOwn(scores, text) ? scores[text]! : constant)
    }
    this.names.add(text)
    return (scores) => {
      if (!Object.hasOwn(scores, text))
        throw new GradeError(
          'invalid_variable_error',
          `calculate_output names \`${text}\`, and there is no such grader.`,
        )
      return scores[text]!
    }
  }

  get #token(): Token {
    return this.#tokens[this.#at]!
  }

  #take(): Token {
    const token = this.#token
    if (token.kind !== 'end') this.#at++
    return token
  }

  #expect(text: string): void {
    if (this.#token.text !== text || this.#token.kind !== 'sign')
      throw this.#unexpected(this.#token, `expected \`${text}\``)
    this.#take()
  }

  #deeper(read: () => Node): Node {
    if (++this.#depth > MAX_DEPTH) throw mistake(`it is nested more than ${MAX_DEPTH} deep`)
    const node = read()
    this.#depth--
    return node
  }

  #unexpected(token: Token = this.#token, more?: string) {
    return mistake(`unexpected ${token.text}${more ? `, ${more}` : ''}`, token.at)
  }
}

const mistake = (message: string, at?: number) =>
  new GradeError(
    'formula_parse_error',
    `calculate_output cannot be read: ${message}${at === undefined ? '' : ` at character ${at + 1}`}.`,
  )

function apply(sign: string, a: number, b: number): number {
  switch (sign) {
    case '+':
      return a + b
    case '-':
      return a - b
    case '*':
      return a * b
    case '/':
      return a / b
    default:
      return a % b
  }
}
