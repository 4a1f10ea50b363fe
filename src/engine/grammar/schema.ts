// JSON Schema → what the grammar library honours to the letter. A keyword that it would pass over is an error that names it:
// an answer that ends always validates.

import { invalidRequest } from '../../errors.ts'
import type { GrammarSource } from './request.ts'

type Json = Record<string, unknown>

/** Says nothing about what is valid. */
const NOTES = [
  'title',
  'description',
  'default',
  'examples',
  '$schema',
  '$id',
  '$comment',
  'deprecated',
  'readOnly',
  'writeOnly',
  '$defs',
  'definitions',
  'strict',
]

const BY_TYPE: Record<string, readonly string[]> = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems'],
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  integer: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  number: ['minimum'],
  boolean: [],
  null: [],
}

const FORMATS = [
  'date',
  'time',
  'date-time',
  'duration',
  'email',
  'hostname',
  'ipv4',
  'ipv6',
  'uuid',
  'uri',
]

/** Longer counts make grammars of gigabytes. */
const MOST = 4096
const DEEPEST = 64

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * The grammar of a client's schema. Throws 400 with the path of the first keyword that cannot be honoured:
 * `response_format.json_schema.schema.properties.age.multipleOf`.
 */
export const prepareSchema = (schema: unknown, param: string): GrammarSource => ({
  type: 'json_schema',
  text: JSON.stringify(prepared(schema, param, 0)),
  param,
})

function prepared(schema: unknown, path: string, depth: number): unknown {
  if (schema === true) return {}
  if (!isObject(schema)) throw wrong(path, 'expected an object')
  if (depth > DEEPEST) throw wrong(path, `nested more than ${DEEPEST} deep`)
  const below = (value: unknown, ...at: (string | number)[]) =>
    prepared(value, [path, ...at].join('.'), depth + 1)
  const definitions = Object.fromEntries(
    ['$defs', 'definitions'].flatMap((name) =>
      isObject(schema[name]) ? [[name, each(schema[name], (v, key) => below(v, name, key))]] : [],
    ),
  )
  const only = (...allowed: string[]) => {
    const other = Object.keys(schema).find((key) => !NOTES.includes(key) && !allowed.includes(key))
    if (other !== undefined)
      throw unsupported(`${path}.${other}`, other, allowed[0] === 'type' ? undefined : allowed[0])
  }

  if ('$ref' in schema) {
    only('$ref')
    if (typeof schema.$ref !== 'string' || !schema.$ref.startsWith('#'))
      throw wrong(`${path}.$ref`, "only references into the schema itself, '#…', are followed")
    return { ...definitions, $ref: schema.$ref }
  }
  if ('const' in schema) {
    only('const', 'type')
    return { ...definitions, const: schema.const }
  }
  if ('enum' in schema) {
    only('enum', 'type')
    const types = typesOf(schema, path)
    const values = Array.isArray(schema.enum) ? schema.enum : []
    const fitting = types
      ? values.filter((value) => types.some((type) => isOf(value, type)))
      : values
    if (fitting.length === 0) throw wrong(`${path}.enum`, 'no value is possible')
    return { ...definitions, enum: fitting }
  }
  for (const union of ['anyOf', 'oneOf', 'allOf']) {
    if (!(union in schema)) continue
    only(union)
    const branches = schema[union]
    if (!Array.isArray(branches) || branches.length === 0)
      throw wrong(`${path}.${union}`, 'expected an array that is not empty')
    if (union === 'allOf' && branches.length > 1) throw unsupported(`${path}.allOf`, 'allOf')
    if (union === 'oneOf' && !apart(branches)) throw unsupported(`${path}.oneOf`, 'oneOf')
    return { ...definitions, anyOf: branches.map((branch, i) => below(branch, union, i)) }
  }

  const types = typesOf(schema, path) ?? guessed(schema)
  if (!types) {
    only()
    return definitions
  }
  only('type', ...types.flatMap((type) => BY_TYPE[type] ?? []))
  const branches = types.map((type) => ofType(type, schema, path, below))
  return branches.length === 1
    ? { ...definitions, ...branches[0] }
    : { ...definitions, anyOf: branches }
}

function ofType(
  type: string,
  schema: Json,
  path: string,
  below: (value: unknown, ...at: (string | number)[]) => unknown,
): Json {
  for (const key of ['minItems', 'maxItems', 'minLength', 'maxLength'])
    if (typeof schema[key] === 'number' && schema[key] > MOST)
      throw wrong(`${path}.${key}`, `at most ${MOST}`)
  const own = Object.fromEntries(
    (BY_TYPE[type] ?? []).flatMap((key) => (key in schema ? [[key, schema[key]]] : [])),
  )
  switch (type) {
    case 'object': {
      const properties = isObject(schema.properties)
        ? each(schema.properties, (value, key) => below(value, 'properties', key))
        : {}
      const others = schema.additionalProperties ?? Object.keys(properties).length === 0
      const required = Array.isArray(schema.required) ? schema.required.map(String) : []
      for (const name of required) {
        if (Object.hasOwn(properties, name)) continue
        if (schema.additionalProperties === false)
          throw wrong(`${path}.required`, `'${name}' is required and not allowed`)
        properties[name] = isObject(others) ? below(others, 'additionalProperties') : {}
      }
      return {
        type,
        properties,
        required,
        additionalProperties:
          typeof others === 'boolean' ? others : below(others, 'additionalProperties'),
      }
    }
    case 'array': {
      const prefix = Array.isArray(schema.prefixItems)
        ? { prefixItems: schema.prefixItems.map((item, i) => below(item, 'prefixItems', i)) }
        : {}
      const { items = true } = schema
      return { ...own, type, ...prefix, items: items === false ? false : below(items, 'items') }
    }
    case 'string': {
      if ('pattern' in schema) {
        if ('minLength' in schema || 'maxLength' in schema || 'format' in schema)
          throw unsupported(`${path}.pattern`, 'pattern', 'a length or a format')
        own.pattern = quotable(schema.pattern, `${path}.pattern`)
      }
      if ('format' in schema) {
        if ('minLength' in schema || 'maxLength' in schema)
          throw unsupported(`${path}.format`, 'format', 'a length')
        if (!FORMATS.includes(String(schema.format)))
          throw wrong(`${path}.format`, `'${schema.format}' is not among ${FORMATS.join(', ')}`)
      }
      return { ...own, type }
    }
    case 'number': {
      // The library's grammars of ranges hold for whole bounds below alone.
      if ('minimum' in schema && !Number.isInteger(schema.minimum))
        throw wrong(`${path}.minimum`, 'the bound of a number must be an integer')
      return { ...own, type }
    }
    default:
      return { ...own, type }
  }
}

/** Whether no value can be of two branches: their types differ, or a required constant does. */
function apart(branches: readonly unknown[]): boolean {
  if (!branches.every(isObject)) return false
  const kinds = branches.map((branch) => [branch.type].flat())
  const all = kinds.flat()
  if (!all.includes(undefined) && new Set(all).size === all.length)
    return !(all.includes('integer') && all.includes('number'))
  const constants = branches.map(({ properties, required }) =>
    isObject(properties) && Array.isArray(required)
      ? Object.entries(properties).flatMap(([name, value]) =>
          isObject(value) && 'const' in value && required.includes(name)
            ? [[name, JSON.stringify(value.const)] as const]
            : [],
        )
      : [],
  )
  return (constants[0] ?? []).some(([name]) => {
    const values = constants.map((list) => list.find(([other]) => other === name)?.[1])
    return !values.includes(undefined) && new Set(values).size === values.length
  })
}

/** What a JSON string cannot hold without an escape. */
const ESCAPED = '"\\\\\\x00-\\x1f'

/** The same pattern, which matches no character that JSON would escape. Patterns are matched as a whole. */
function quotable(pattern: unknown, path: string): string {
  if (typeof pattern !== 'string') throw wrong(path, 'expected a string')
  try {
    new RegExp(pattern, 'u')
  } catch (error) {
    throw wrong(path, error instanceof Error ? error.message : 'not a regular expression')
  }
  const odd = /\(\?(?!:)|\\[^dws.*+?^${}()|[\]/-]|"|[*+?}]\+/.exec(pattern)?.[0]
  if (odd) throw wrong(path, `'${odd}' is not supported in patterns`)
  for (const [range, from, to] of pattern.matchAll(/([^\\[])-([^\]])/gu))
    if (['"', '\\'].some((c) => from! < c && c < to!) && from !== to && pattern.includes('['))
      throw wrong(path, `the range '${range}' holds characters that JSON escapes`)
  let inside = false
  const parts = pattern.match(/\\.|./gsu) ?? []
  return parts
    .map((part, i) => {
      if (part === '\\s') return inside ? ' ' : '[ ]'
      if (part === '[' && !inside) {
        inside = true
        return part
      }
      if (part === '^' && inside && parts[i - 1] === '[') return `^${ESCAPED}`
      if (part === ']') inside = false
      return part === '.' && !inside ? `[^${ESCAPED}]` : part
    })
    .join('')
}

function typesOf({ type }: Json, path: string): string[] | undefined {
  if (type === undefined) return undefined
  const types = [type].flat().map(String)
  const unknown = types.find((name) => !Object.hasOwn(BY_TYPE, name))
  if (unknown !== undefined || types.length === 0) throw wrong(`${path}.type`, `found '${unknown}'`)
  return types
}

/** A schema that names no type speaks of the one its keywords are for. */
const guessed = (schema: Json): string[] | undefined => {
  const found = Object.entries(BY_TYPE).find(
    ([type, keys]) => type !== 'integer' && keys.some((key) => key in schema),
  )
  return found && [found[0]]
}

function isOf(value: unknown, type: string): boolean {
  if (type === 'null') return value === null
  if (type === 'array') return Array.isArray(value)
  if (type === 'object') return isObject(value)
  if (type === 'integer') return Number.isInteger(value)
  return typeof value === type
}

const each = (object: Json, f: (value: unknown, key: string) => unknown): Json =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [key, f(value, key)]))

const wrong = (param: string, reason: string) =>
  invalidRequest(`Invalid schema: '${param}': ${reason}.`, { param, code: 'invalid_json_schema' })

const unsupported = (param: string, keyword: string, beside?: string) =>
  invalidRequest(
    `Invalid schema: the keyword '${keyword}' at '${param}' is not supported${beside ? ` beside ${beside}` : ''}.`,
    { param, code: 'invalid_json_schema' },
  )
