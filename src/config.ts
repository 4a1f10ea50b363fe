// The environment → one frozen, validated Config. Read here and nowhere else.

import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import { type Compute, capabilitiesOf, DEVICES, type DeviceKind } from './engine/runtime/device.ts'
import { type LogLevel, logLevels } from './log.ts'

const precisions = ['auto', 'fp32', 'int8', 'int4'] as const
const roles = ['all', 'api', 'worker'] as const

export type Precision = (typeof precisions)[number]
export type Role = (typeof roles)[number]

export interface Hub {
  /** Base address of the hub or of its mirror. */
  readonly endpoint: string
  readonly token?: string
  /** A hub that has not answered a request by then is taken for unreachable. */
  readonly connect_timeout_ms: number
}

/** Several devices are of one kind: whatever they share comes out the same on each. */
export interface Devices extends Compute {
  readonly count: number
}

export interface S3 {
  readonly bucket: string
  /** Undefined: AWS itself. */
  readonly endpoint: string | undefined
  /** Undefined: the SDK finds it, in AWS_REGION or its profile. */
  readonly region: string | undefined
  readonly forcePathStyle: boolean
  /** What copies of objects may take on this machine's disk. */
  readonly cacheLimit: number
}

export interface Config {
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  /** `LUTHIER_HOME`, absolute: all that the embedded parts keep. */
  readonly home: string
  /** Undefined: the embedded Postgres under `home`. */
  readonly databaseUrl: string | undefined
  /** Undefined: objects lie in a folder under `home`. The SDK finds the credentials in its own variables. */
  readonly s3: S3 | undefined
  /** Bytes that one project's objects may take; undefined: as many as there is room for. */
  readonly projectDiskLimit: number | undefined
  /** Undefined: one is made at first start and kept in `home`/api-key. */
  readonly apiKey: string | undefined
  /** The folder of base models, absolute. */
  readonly models: string
  /** What a client may write instead of a model's id → that id. */
  readonly modelAliases: Readonly<Record<string, string>>
  /** The tuned classifier that answers /v1/moderations; undefined: only one that the client names does. */
  readonly moderationModel: string | undefined
  /** Where `luthier pull hf:…` looks: `HF_ENDPOINT`, `HF_TOKEN`. */
  readonly hub: Hub
  /** What one key may ask of inference in a minute. */
  readonly limits: { readonly requests_per_minute: number; readonly tokens_per_minute: number }
  /** Seconds that a request for inference may take. */
  readonly requestSeconds: number
  /** Of frozen weights; `int4` is for serving alone. */
  readonly precision: Precision
  /** Bytes that loaded adapters may take; undefined: a sixteenth of the machine's memory. */
  readonly adapterMemory: number | undefined
  readonly devices: Devices
  /** Of a device's time, 0 … 1, what training gets while answers want all of it. */
  readonly trainingShare: number
  readonly role: Role
  /** Where other processes reach this one, if it is a worker; undefined: at `host` and `port`. */
  readonly workerUrl: string | undefined
  readonly logLevel: LogLevel
}

type Environment = Readonly<Record<string, string | undefined>>

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
    s3: readS3(read, mistakes),
    projectDiskLimit: readBytes('LUTHIER_PROJECT_DISK_LIMIT', read, mistakes),
    apiKey: readApiKey(read('LUTHIER_API_KEY'), mistakes),
    models: resolve(read('LUTHIER_MODELS') ?? resolve(home, 'models')),
    modelAliases: Object.freeze(readAliases(read('LUTHIER_MODEL_ALIASES'), mistakes)),
    moderationModel: read('LUTHIER_MODERATION_MODEL'),
    hub: Object.freeze(readHub(read('HF_ENDPOINT'), read('HF_TOKEN'), mistakes)),
    limits: Object.freeze({
      requests_per_minute: readCount('LUTHIER_REQUESTS_PER_MINUTE', 30_000, read, mistakes),
      tokens_per_minute: readCount('LUTHIER_TOKENS_PER_MINUTE', 10_000_000, read, mistakes),
    }),
    requestSeconds: readCount('LUTHIER_REQUEST_TIMEOUT', 600, read, mistakes),
    precision: oneOf('LUTHIER_PRECISION', precisions, 'auto'),
    adapterMemory: readBytes('LUTHIER_ADAPTER_MEMORY', read, mistakes),
    devices: Object.freeze(readDevices(read, mistakes)),
    trainingShare: readShare(read('LUTHIER_TRAINING_SHARE'), mistakes),
    role: oneOf('LUTHIER_ROLE', roles, 'all'),
    workerUrl: read('LUTHIER_WORKER_URL'),
    logLevel: oneOf('LOG_LEVEL', logLevels, 'info'),
  }
  const { device, count } = config.devices
  const { precision } = config
  const computed =
    precision === 'auto' ||
    precision === 'int4' ||
    capabilitiesOf(device).precisions.includes(precision)
  if (!computed)
    mistakes.push(`LUTHIER_PRECISION: '${config.precision}' is not computed on ${device}`)
  if (device !== 'cpu' && count > 1)
    mistakes.push(`LUTHIER_DEVICE: one ${device} is all that a process can use, not ${count}`)
  if (config.role !== 'all' && config.databaseUrl === undefined)
    mistakes.push(
      `LUTHIER_ROLE: '${config.role}' shares a database with other processes; set DATABASE_URL`,
    )
  if (config.workerUrl !== undefined && !/^http:\/\/[^/]/.test(config.workerUrl))
    mistakes.push(`LUTHIER_WORKER_URL: '${config.workerUrl}' does not begin with http://`)
  if (config.workerUrl !== undefined && config.role !== 'worker')
    mistakes.push(
      `LUTHIER_WORKER_URL: with the role '${config.role}' this means nothing; set LUTHIER_ROLE=worker`,
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

type Read = (name: string) => string | undefined

const readS3 = (read: Read, mistakes: string[]): S3 | undefined => {
  const bucket = read('S3_BUCKET')
  const endpoint = read('S3_ENDPOINT')
  if (endpoint !== undefined && !/^https?:\/\/[^/]/.test(endpoint))
    mistakes.push(`S3_ENDPOINT: '${endpoint}' does not begin with http:// or https://`)
  const style = read('S3_FORCE_PATH_STYLE')
  if (style !== undefined && style !== 'true' && style !== 'false')
    mistakes.push(`S3_FORCE_PATH_STYLE: '${style}' is none of true, false`)
  const cacheLimit = readBytes('S3_CACHE_LIMIT', read, mistakes) ?? 20 * 1024 ** 3
  if (bucket === undefined) {
    const others = ['S3_ENDPOINT', 'S3_REGION', 'S3_FORCE_PATH_STYLE', 'S3_CACHE_LIMIT']
    const set = others.filter((name) => read(name) !== undefined)
    if (set.length > 0) mistakes.push(`${set.join(', ')}: without S3_BUCKET this means nothing`)
    return undefined
  }
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket))
    mistakes.push(`S3_BUCKET: '${bucket}' is no name of a bucket`)
  // What is not AWS seldom has a host name for every bucket.
  const forcePathStyle = style === undefined ? endpoint !== undefined : style === 'true'
  return Object.freeze({ bucket, endpoint, region: read('S3_REGION'), forcePathStyle, cacheLimit })
}

/** `500MB`, `20 GB`, `1TB`, or plain bytes; a MB has 1024 × 1024 of them, as in the limits of the API. */
const readBytes = (name: string, read: Read, mistakes: string[]): number | undefined => {
  const text = read(name)
  if (text === undefined) return undefined
  const [, number, unit] = /^(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?$/i.exec(text) ?? []
  const bytes = Math.round(Number(number) * 1024 ** ' KMGT'.indexOf(unit?.toUpperCase() || ' '))
  if (number !== undefined && Number.isSafeInteger(bytes) && bytes > 0) return bytes
  mistakes.push(`${name}: '${text}' is no number of bytes, such as 20GB`)
  return undefined
}

const readCount = (name: string, fallback: number, read: Read, mistakes: string[]): number => {
  const text = read(name)
  if (text === undefined) return fallback
  const count = Number(text)
  if (/^\d+$/.test(text) && Number.isSafeInteger(count) && count > 0) return count
  mistakes.push(`${name}: '${text}' is no whole number above 0`)
  return fallback
}

/** Per cent, `25`, or `25%`. */
const readShare = (text: string | undefined, mistakes: string[]): number => {
  const percent = Number(text?.replace(/\s*%$/, '') ?? 25)
  if (percent >= 1 && percent <= 99) return percent / 100
  mistakes.push(`LUTHIER_TRAINING_SHARE: '${text}' is no per cent from 1 to 99`)
  return 0.25
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

/** `cpu,cpu`: two devices that share the machine's cores, unless LUTHIER_THREADS says how many each has. */
const readDevices = (read: Read, mistakes: string[]): Devices => {
  const text = read('LUTHIER_DEVICE') ?? 'auto'
  const names = text === 'auto' ? ['cpu'] : text.split(',').map((name) => name.trim())
  const known = names.filter((name): name is DeviceKind => isOneOf(name, DEVICES))
  for (const name of names)
    if (name === 'auto') mistakes.push("LUTHIER_DEVICE: 'auto' stands alone, not in a list")
    else if (!isOneOf(name, DEVICES))
      mistakes.push(`LUTHIER_DEVICE: '${name}' is none of auto, ${DEVICES.join(', ')}`)
  const [device = 'cpu'] = known
  if (known.some((name) => name !== device))
    mistakes.push(`LUTHIER_DEVICE: the devices of one process are of one kind, not '${text}'`)
  const share = Math.max(1, Math.floor(availableParallelism() / names.length))
  const threads = readCount('LUTHIER_THREADS', share, read, mistakes)
  return { device, count: names.length, threads }
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
