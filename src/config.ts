// The environment → one frozen, validated Config. Read here and nowhere else.

import { resolve } from 'node:path'
import { type LogLevel, logLevels } from './log.ts'

const precisions = ['auto', 'fp32', 'int8', 'int4'] as const
const devices = ['auto', 'cpu', 'webgpu', 'cuda'] as const
const roles = ['all', 'api', 'worker'] as const

export type Precision = (typeof precisions)[number]
export type DeviceName = (typeof devices)[number]
export type Role = (typeof roles)[number]

export interface Hub {
  /** Base address of the hub or of its mirror. */
  readonly endpoint: string
  readonly token?: string
  /** A hub that has not answered a request by then is taken for unreachable. */
  readonly connect_timeout_ms: number
}

export interface Config {
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  /** `LUTHIER_HOME`, absolute: all that the embedded parts keep. */
  readonly home: string
  /** Undefined: the embedded Postgres under `home`. */
  readonly databaseUrl: string | undefined
  /** Undefined: one is made at first start and kept in `home`/api-key. */
  readonly apiKey: string | undefined
  /** The folder of base models, absolute. */
  readonly models: string
  /** What a client may write instead of a model's id → that id. */
  readonly modelAliases: Readonly<Record<string, string>>
  /** Where `luthier pull hf:…` looks: `HF_ENDPOINT`, `HF_TOKEN`. */
  readonly hub: Hub
  readonly precision: Precision
  readonly devices: readonly DeviceName[]
  readonly role: Role
  readonly logLevel: LogLevel
}

type Environment = Readonly<Record<string, string | undefined>>

const S3_SETTINGS = ['S3_BUCKET', 'S3_ENDPOINT', 'S3_REGION', 'S3_FORCE_PATH_STYLE'] as const

/** Reads the settings; whatever is wrong with any of them is said in one message. */
export const readConfig = (env: Environment): Config => {
  const mistakes: string[] = []
  const read = (name: string) => env[name]?.trim() || undefined
  const oneOf = <T extends string>(name: string, allowed: readonly T[], fallback: T): T => {
    const value = read(name) ?? fallback
    if (isOneOf(value, allowed)) return value
    mistakes.push(`${name}: '${value}' is none of ${allowed.join(', ')}`)
    return fallback
  }

  const home = resolve(read('LUTHIER_HOME') ?? '.luthier')
  const config: Config = {
    host: read('HOST') ?? '127.0.0.1',
    port: readPort(read('PORT'), mistakes),
    home,
    databaseUrl: readDatabaseUrl(read('DATABASE_URL'), mistakes),
    apiKey: readApiKey(read('LUTHIER_API_KEY'), mistakes),
    models: resolve(read('LUTHIER_MODELS') ?? resolve(home, 'models')),
    modelAliases: Object.freeze(readAliases(read('LUTHIER_MODEL_ALIASES'), mistakes)),
    hub: Object.freeze(readHub(read('HF_ENDPOINT'), read('HF_TOKEN'), mistakes)),
    precision: oneOf('LUTHIER_PRECISION', precisions, 'auto'),
    devices: Object.freeze(readDevices(read('LUTHIER_DEVICE'), mistakes)),
    role: oneOf('LUTHIER_ROLE', roles, 'all'),
    logLevel: oneOf('LOG_LEVEL', logLevels, 'info'),
  }
  if (!['auto', 'fp32'].includes(config.precision))
    mistakes.push(`LUTHIER_PRECISION: '${config.precision}' is not supported yet; use auto or fp32`)
  if (config.devices.some((device) => device !== 'auto' && device !== 'cpu'))
    mistakes.push(`LUTHIER_DEVICE: only auto and cpu are supported yet, not '${config.devices}'`)
  if (config.role !== 'all')
    mistakes.push(`LUTHIER_ROLE: '${config.role}' is not supported yet; use all`)
  const s3 = S3_SETTINGS.filter((name) => read(name) !== undefined)
  if (s3.length > 0)
    mistakes.push(
      `${s3.join(', ')}: storage in S3 is not supported yet; unset it, and objects are kept under LUTHIER_HOME`,
    )
  if (mistakes.length > 0)
    throw new Error(`The settings are wrong:\n${mistakes.map((text) => `  ${text}`).join('\n')}`)
  return Object.freeze(config)
}

const isOneOf = <T extends string>(value: string, allowed: readonly T[]): value is T =>
  (allowed as readonly string[]).includes(value)

const readPort = (text: string | undefined, mistakes: string[]): number => {
  if (text === undefined) return 8080
  const port = Number(text)
  if (/^\d+$/.test(text) && port <= 65_535) return port
  mistakes.push(`PORT: '${text}' is no number from 0 to 65535`)
  return 8080
}

const readDatabaseUrl = (text: string | undefined, mistakes: string[]): string | undefined => {
  // The value may hold a password, so the message does not repeat it.
  if (text !== undefined && !/^postgres(ql)?:\/\//.test(text))
    mistakes.push('DATABASE_URL: it does not begin with postgres:// or postgresql://')
  return text
}

const readApiKey = (text: string | undefined, mistakes: string[]): string | undefined => {
  if (text !== undefined && /\s/.test(text)) mistakes.push('LUTHIER_API_KEY: a key has no space')
  return text
}

const readHub = (
  endpoint: string | undefined,
  token: string | undefined,
  mistakes: string[],
): Hub => {
  if (endpoint !== undefined && !/^https?:\/\/[^/]/.test(endpoint))
    mistakes.push(`HF_ENDPOINT: '${endpoint}' does not begin with http:// or https://`)
  return {
    endpoint: endpoint ?? 'https://huggingface.co',
    ...(token !== undefined && { token }),
    connect_timeout_ms: 5000,
  }
}

const readDevices = (text: string | undefined, mistakes: string[]): DeviceName[] => {
  const names = (text ?? 'auto').split(',').map((name) => name.trim())
  const known = names.filter((name) => isOneOf(name, devices))
  for (const name of names)
    if (!isOneOf(name, devices))
      mistakes.push(`LUTHIER_DEVICE: '${name}' is none of ${devices.join(', ')}`)
  if (known.length > 1 && known.includes('auto'))
    mistakes.push("LUTHIER_DEVICE: 'auto' stands alone, not in a list")
  return known
}

const readAliases = (text: string | undefined, mistakes: string[]): Record<string, string> => {
  const aliases: Record<string, string> = {}
  for (const pair of text?.split(',') ?? []) {
    const [alias, model, ...rest] = pair.split('=').map((part) => part.trim())
    if (!alias || !model || rest.length > 0)
      mistakes.push(`LUTHIER_MODEL_ALIASES: '${pair.trim()}' is no alias=model`)
    else if (alias in aliases) mistakes.push(`LUTHIER_MODEL_ALIASES: '${alias}' stands twice`)
    else aliases[alias] = model
  }
  return aliases
}
