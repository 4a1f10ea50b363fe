// What a parameter says for one tensor: a number, a gradient over the layers, or a table of filters.

import { invalidRequest } from '../../errors.ts'

export type Scalar = number | boolean | string
/** A value, a list of values along the layers, or values for tensors whose name holds `filter`. */
export type Setting = Scalar | readonly Scalar[] | readonly Conditional[]

export interface Conditional {
  readonly value: Scalar | readonly Scalar[]
  /** A part of a tensor's name; absent or `*`: every tensor. */
  readonly filter?: string
}

export type Settings = Readonly<Record<string, Setting>>

export type ParameterValue = number | boolean

export interface ParameterSpec {
  readonly type: 'number' | 'boolean'
  /** Of the whole merge, of each input, or of each input but the base. */
  readonly of: 'merge' | 'input' | 'other'
  /** Absent: it must be given. Null: nothing where it is not given. */
  readonly default?: ParameterValue | null
}

/** Checks what stands in a merge's text. */
export function readSetting(value: unknown, param: string): Setting {
  if (isScalar(value)) return value
  const one = isConditional(value) ? [value] : value
  if (Array.isArray(one) && one.every(isScalar)) return one
  if (Array.isArray(one) && one.length > 0 && one.every(isConditional))
    return one.map(({ value, filter }) => ({
      value: value as Conditional['value'],
      ...(filter != null && { filter: String(filter) }),
    }))
  throw invalidRequest(
    `Invalid '${param}': expected a number, a list of numbers, or a list of {filter, value}.`,
    { param, code: 'invalid_value' },
  )
}

const isScalar = (value: unknown): value is Scalar =>
  typeof value === 'number' || typeof value === 'boolean' || typeof value === 'string'

const isConditional = (item: unknown): item is { value: unknown; filter?: unknown } =>
  typeof item === 'object' &&
  item !== null &&
  'value' in item &&
  (isScalar(item.value) || (Array.isArray(item.value) && item.value.every(isScalar)))

/**
 * A parameter for one tensor: the first of `sources` that says something goes, else the default. `t` in [0, 1] is
 * the place among the layers. Throws where nothing is said and there is no default.
 */
export function resolve(
  name: string,
  spec: ParameterSpec,
  { sources, tensor, t }: { sources: readonly (Settings | undefined)[]; tensor: string; t: number },
): ParameterValue | null {
  for (const settings of sources) {
    const setting = settings && Object.hasOwn(settings, name) ? settings[name] : undefined
    const value = setting === undefined ? undefined : evaluate(setting, { name, spec, tensor, t })
    if (value !== undefined) return value
  }
  if (spec.default === undefined)
    throw invalidRequest(`The parameter '${name}' is missing for the tensor ${tensor}.`, {
      param: `parameters.${name}`,
      code: 'missing_required_parameter',
    })
  return spec.default
}

interface Asked {
  name: string
  spec: ParameterSpec
  tensor: string
  t: number
}

function evaluate(setting: Setting, asked: Asked): ParameterValue | undefined {
  if (!Array.isArray(setting)) return asType(setting as Scalar, asked)
  if (setting.length === 0) return undefined
  if (setting.every(isScalar)) return alongLayers(setting as readonly Scalar[], asked)
  for (const { value, filter } of setting as readonly Conditional[])
    if (filter === undefined || filter === '*' || asked.tensor.includes(filter))
      return evaluate(value, asked)
  return undefined
}

/** Numbers between the list's points are interpolated; flags hold up to the next point. */
function alongLayers(list: readonly Scalar[], asked: Asked): ParameterValue {
  const values = list.map((value) => asType(value, asked))
  const at = asked.t * (values.length - 1)
  const i = Math.trunc(at)
  const low = values[i]!
  const high = values[Math.min(values.length - 1, i + 1)]!
  if (typeof low === 'boolean' || typeof high === 'boolean') return low
  return (1 - (at - i)) * low + (at - i) * high
}

const FLAGS: Readonly<Record<string, boolean>> = {
  true: true,
  yes: true,
  on: true,
  '1': true,
  false: false,
  no: false,
  off: false,
  '0': false,
}

function asType(value: Scalar, { name, spec: { type } }: Asked): ParameterValue {
  if (type === 'boolean') {
    const flag = FLAGS[String(value).toLowerCase()]
    if (flag !== undefined) return flag
  } else {
    // YAML 1.1 reads 1e-5 as text.
    const number = typeof value === 'boolean' || value === '' ? Number.NaN : Number(value)
    if (Number.isFinite(number)) return number
  }
  throw invalidRequest(`Invalid '${name}': ${JSON.stringify(value)} is no ${type}.`, {
    param: `parameters.${name}`,
    code: 'invalid_value',
  })
}
