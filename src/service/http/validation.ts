// Checks a request against its TypeBox schema and says in OpenAI's words what is wrong, with the path to it.

import type { FastifySchemaCompiler } from 'fastify'
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import type { TLocalizedValidationError } from 'typebox/error'
import { Settings } from 'typebox/system'
import { type ApiError, invalidRequest } from '../../errors.ts'

// A union of message roles alone has more than the default of eight.
Settings.Set({ maxErrors: 200 })

type Mistake = TLocalizedValidationError

/** Fastify's validator for every route: numbers and booleans in a query are read as such, bodies are not bent. */
export const validatorCompiler: FastifySchemaCompiler<TSchema> = ({ schema, httpPart }) => {
  const check = Compile(schema)
  return (input: unknown) => {
    const value = httpPart === 'querystring' ? readQuery(schema, input) : input
    if (check.Check(value)) return { value }
    return { error: describeMistakes(check.Errors(value), value) }
  }
}

/** The one reply for all the mistakes of a request: about the first of them. */
export const describeMistakes = (mistakes: readonly Mistake[], value: unknown): ApiError =>
  describe(first(mistakes, '#'), { mistakes, value })

interface Context {
  readonly mistakes: readonly Mistake[]
  readonly value: unknown
}

/** The first mistake that is not only one branch's of a union inside `root`; the union then speaks for it. */
const first = (mistakes: readonly Mistake[], root: string): Mistake => {
  const here = mistakes.filter((m) => m.schemaPath === root || m.schemaPath.startsWith(`${root}/`))
  const unions = here.filter((m) => m.keyword === 'anyOf').map((m) => `${m.schemaPath}/anyOf/`)
  const found = here.find(
    // `false` is what stands behind additionalProperties, which says more.
    (m) => m.keyword !== 'boolean' && !unions.some((union) => m.schemaPath.startsWith(union)),
  )
  return found ?? here[0] ?? mistakes[0]!
}

const describe = (mistake: Mistake, context: Context): ApiError => {
  const param = paramOf(mistake.instancePath)
  const found = valueAt(context.value, mistake.instancePath)
  switch (mistake.keyword) {
    case 'required': {
      const path = join(param, mistake.params.requiredProperties[0] ?? '')
      return invalidRequest(`Missing required parameter: '${path}'.`, {
        param: path,
        code: 'missing_required_parameter',
      })
    }
    case 'additionalProperties': {
      const path = join(param, mistake.params.additionalProperties[0] ?? '')
      return invalidRequest(`Unknown parameter: '${path}'.`, {
        param: path,
        code: 'unknown_parameter',
      })
    }
    case 'type':
      return wrongType(param, [mistake.params.type].flat().map(nameType), found)
    case 'const':
      return wrongValue(param, [mistake.params.allowedValue], found)
    case 'enum':
      return wrongValue(param, mistake.params.allowedValues, found)
    case 'anyOf':
      return describeUnion(mistake, context)
    default:
      return invalid(param, `${nameOf(param)}: ${limitOf(mistake, found)}`)
  }
}

/** Of a union, the branch that was meant speaks; where none was, the union says what it takes. */
const describeUnion = (union: Mistake, context: Context): ApiError => {
  const prefix = `${union.schemaPath}/anyOf/`
  const inside = context.mistakes.filter((m) => m.schemaPath.startsWith(prefix))
  const param = paramOf(union.instancePath)
  const found = valueAt(context.value, union.instancePath)
  const branches = groupBy(inside, (m) => m.schemaPath.slice(prefix.length).split('/')[0] ?? '')

  const meant = branches.filter(([, mistakes]) => !mistakes.some((m) => missesKind(m, union)))
  const best = meant.sort(([, a], [, b]) => a.length - b.length)[0]
  if (best) return describe(first(context.mistakes, `${prefix}${best[0]}`), context)

  // Every object branch refuses the field that tells the branches apart.
  const tags = inside.filter((m) => m.keyword === 'const' && m.instancePath !== union.instancePath)
  const tag = tags[0]
  if (tag && typeof found === 'object' && found !== null) {
    const same = tags.filter((m) => m.instancePath === tag.instancePath)
    const allowed = same.map((m) => (m.keyword === 'const' ? m.params.allowedValue : undefined))
    const tagParam = paramOf(tag.instancePath)
    return wrongValue(tagParam, allowed, valueAt(context.value, tag.instancePath))
  }

  const own = inside.filter((m) => m.instancePath === union.instancePath)
  const constants = own.flatMap((m) => (m.keyword === 'const' ? [m.params.allowedValue] : []))
  const kinds = own.flatMap((m) => (m.keyword === 'type' ? [m.params.type].flat() : []))
  const sameKind = constants.some((value) => typeof value === typeof found)
  if (sameKind && constants.length > 0) return wrongValue(param, constants, found)
  const types = kinds.filter((kind) => !constants.some((value) => typeof value === kind))
  return wrongType(param, [...constants.map(quote), ...types.map(nameType)], found)
}

const groupBy = <T>(items: readonly T[], keyOf: (item: T) => string): [string, T[]][] => {
  const groups = new Map<string, T[]>()
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item])
  return [...groups]
}

/** Whether a branch was not meant: the value is of another kind, or its tag (`role`, `type`) is another. */
const missesKind = (mistake: Mistake, union: Mistake): boolean => {
  if (mistake.keyword === 'type') return mistake.instancePath === union.instancePath
  if (mistake.keyword !== 'const') return false
  const rest = mistake.instancePath.slice(union.instancePath.length)
  return rest === '' || /^\/(role|type|object|anchor)$/.test(rest)
}

const wrongType = (param: string, expected: readonly string[], found: unknown): ApiError => {
  const names = [...new Set(expected)]
  const wanted = names.length > 1 ? `one of ${list(names, 'or')}` : (names[0] ?? 'another type')
  return invalidRequest(
    `Invalid type for ${nameOf(param)}: expected ${wanted}, but got ${typeOf(found)} instead.`,
    { param: param || null, code: 'invalid_type' },
  )
}

const wrongValue = (param: string, allowed: readonly unknown[], found: unknown): ApiError => {
  const values = [...new Set(allowed)].map(quote)
  const supported =
    values.length > 1 ? `values are: ${list(values, 'and')}` : `value is: ${values[0]}`
  return invalid(param, `Invalid value: ${quote(found)}. Supported ${supported}.`, true)
}

const invalid = (param: string, text: string, whole = false): ApiError =>
  invalidRequest(whole ? text : `Invalid ${text}`, { param: param || null, code: 'invalid_value' })

const limitOf = (mistake: Mistake, found: unknown): string => {
  switch (mistake.keyword) {
    case 'minimum':
    case 'exclusiveMinimum':
    case 'maximum':
    case 'exclusiveMaximum':
      return `expected a value ${mistake.params.comparison} ${mistake.params.limit}, but got ${found} instead.`
    case 'minLength':
      return `string too short. Expected a string with minimum length ${mistake.params.limit}, but got length ${String(found).length} instead.`
    case 'maxLength':
      return `string too long. Expected a string with maximum length ${mistake.params.limit}, but got length ${String(found).length} instead.`
    case 'minItems':
      return `array too short. Expected an array with minimum length ${mistake.params.limit}, but got length ${lengthOf(found)} instead.`
    case 'maxItems':
      return `array too long. Expected an array with maximum length ${mistake.params.limit}, but got length ${lengthOf(found)} instead.`
    case 'maxProperties':
      return `too many properties. Expected an object with at most ${mistake.params.limit} properties, but got ${lengthOf(found)} instead.`
    default:
      return `${mistake.message}.`
  }
}

const lengthOf = (value: unknown): number =>
  typeof value === 'object' && value !== null ? Object.keys(value).length : 0

const nameOf = (param: string) => (param ? `'${param}'` : 'the request body')

/** JSON pointer → `messages[0].content`. */
const paramOf = (pointer: string): string =>
  stepsOf(pointer).reduce(
    (path, step) => (/^\d+$/.test(step) && path ? `${path}[${step}]` : join(path, step)),
    '',
  )

const join = (path: string, step: string) => (path ? `${path}.${step}` : step)

const stepsOf = (pointer: string): string[] =>
  pointer
    .split('/')
    .slice(1)
    .map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'))

const valueAt = (value: unknown, pointer: string): unknown =>
  stepsOf(pointer).reduce<unknown>(
    (at, step) =>
      typeof at === 'object' && at !== null ? (at as Record<string, unknown>)[step] : undefined,
    value,
  )

const nameType = (type: string): string =>
  type === 'null' ? 'null' : `${/^[aeio]/.test(type) ? 'an' : 'a'} ${type}`

const typeOf = (value: unknown): string => {
  if (value === null || value === undefined) return 'null'
  if (Array.isArray(value)) return 'an array'
  if (typeof value === 'number') return Number.isInteger(value) ? 'an integer' : 'a decimal number'
  return nameType(typeof value)
}

const quote = (value: unknown): string => {
  const text = typeof value === 'string' ? `'${value}'` : (JSON.stringify(value) ?? 'null')
  return text.length > 200 ? `${text.slice(0, 200)}…` : text
}

const list = (words: readonly string[], last: 'and' | 'or'): string =>
  words.length < 3
    ? words.join(` ${last} `)
    : `${words.slice(0, -1).join(', ')}, ${last} ${words.at(-1)}`

/** A query has only strings; those whose schema is a number or a boolean become one, if they read as one. */
const readQuery = (schema: TSchema, query: unknown): unknown => {
  if (typeof query !== 'object' || query === null) return query
  const properties = 'properties' in schema ? (schema.properties as Record<string, TSchema>) : {}
  return Object.fromEntries(
    Object.entries(query).map(([name, text]) => {
      const type = (properties[name] as { type?: string } | undefined)?.type
      return [name, typeof text === 'string' ? readText(type, text) : text]
    }),
  )
}

const readText = (type: string | undefined, text: string): unknown => {
  if (type === 'integer' || type === 'number')
    return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text
  if (type === 'boolean') return text === 'true' ? true : text === 'false' ? false : text
  return text
}
