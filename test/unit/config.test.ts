import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import { expect, test } from 'vitest'
import { readConfig } from '../../src/config.ts'

test('an empty environment is enough', () => {
  expect(readConfig({})).toEqual({
    host: '127.0.0.1',
    port: 8080,
    home: resolve('.luthier'),
    databaseUrl: undefined,
    apiKey: undefined,
    models: resolve('.luthier/models'),
    modelAliases: {},
    hub: { endpoint: 'https://huggingface.co', connect_timeout_ms: 5000 },
    limits: { requests_per_minute: 30_000, tokens_per_minute: 10_000_000 },
    requestSeconds: 600,
    precision: 'auto',
    trainingShare: 0.25,
    devices: { device: 'cpu', count: 1, threads: availableParallelism() },
    role: 'all',
    logLevel: 'info',
  })
})

test('every setting is read, and none can be changed afterwards', () => {
  const config = readConfig({
    HOST: '0.0.0.0',
    PORT: '0',
    LUTHIER_HOME: '/srv/luthier',
    DATABASE_URL: 'postgresql://u:p@db/x',
    LUTHIER_API_KEY: 'sk-0123456789abcdef',
    LUTHIER_MODEL_ALIASES: 'gpt-4o-mini=SmolLM2-135M-Instruct, gpt-4o = other',
    LUTHIER_PRECISION: 'fp32',
    LUTHIER_ADAPTER_MEMORY: '1.5GB',
    LUTHIER_DEVICE: 'cpu, cpu',
    LUTHIER_THREADS: '3',
    LUTHIER_ROLE: 'all',
    LOG_LEVEL: 'debug',
  })
  expect(config).toMatchObject({
    host: '0.0.0.0',
    port: 0,
    home: '/srv/luthier',
    models: '/srv/luthier/models',
    modelAliases: { 'gpt-4o-mini': 'SmolLM2-135M-Instruct', 'gpt-4o': 'other' },
    precision: 'fp32',
    adapterMemory: 1.5 * 1024 ** 3,
    devices: { device: 'cpu', count: 2, threads: 3 },
    role: 'all',
  })
  for (const value of [config, config.modelAliases, config.devices])
    expect(Object.isFrozen(value)).toBe(true)
})

test('all mistakes stand in one message, and no secret does', () => {
  const read = () =>
    readConfig({
      PORT: '99999',
      DATABASE_URL: 'mysql://u:secret@db/x',
      LUTHIER_API_KEY: 'short one',
      LUTHIER_MODEL_ALIASES: 'a=b,a=c,d',
      LUTHIER_PRECISION: 'fp64',
      LUTHIER_DEVICE: 'tpu',
      LUTHIER_ROLE: 'boss',
      LOG_LEVEL: 'loud',
      S3_BUCKET: 'Bucket',
      S3_ENDPOINT: 'store:9000',
      S3_FORCE_PATH_STYLE: 'yes',
      S3_CACHE_LIMIT: '-1',
      LUTHIER_PROJECT_DISK_LIMIT: 'much',
      LUTHIER_REQUESTS_PER_MINUTE: '0',
      LUTHIER_TOKENS_PER_MINUTE: '1e6',
      LUTHIER_REQUEST_TIMEOUT: 'soon',
    })
  expect(read).toThrow()
  try {
    read()
  } catch (error) {
    const { message } = error as Error
    for (const name of [
      'PORT',
      'DATABASE_URL',
      'LUTHIER_API_KEY',
      'LUTHIER_PRECISION',
      'LUTHIER_DEVICE',
      'LUTHIER_ROLE',
      'LOG_LEVEL',
      'S3_BUCKET',
      'S3_ENDPOINT',
      'S3_FORCE_PATH_STYLE',
      'S3_CACHE_LIMIT',
      'LUTHIER_PROJECT_DISK_LIMIT',
      'LUTHIER_REQUESTS_PER_MINUTE',
      'LUTHIER_TOKENS_PER_MINUTE',
      'LUTHIER_REQUEST_TIMEOUT',
    ])
      expect(message).toContain(`${name}: `)
    expect(message).toContain("'a' stands twice")
    expect(message).toContain("'d' is no alias=model")
    expect(message).toContain("'fp64' is none of auto, fp32, int8")
    expect(message).not.toContain('secret')
    expect(message).not.toContain('short one')
  }
})

test('S3 needs a bucket; what is not AWS is asked by path and not by host', () => {
  expect(readConfig({ S3_BUCKET: 'luthier' }).s3).toEqual({
    bucket: 'luthier',
    endpoint: undefined,
    region: undefined,
    forcePathStyle: false,
    cacheLimit: 20 * 1024 ** 3,
  })
  const own = { S3_BUCKET: 'luthier', S3_ENDPOINT: 'http://s3:9000', S3_CACHE_LIMIT: '1.5 GB' }
  expect(readConfig(own).s3).toMatchObject({ forcePathStyle: true, cacheLimit: 1.5 * 1024 ** 3 })
  expect(readConfig({ ...own, S3_FORCE_PATH_STYLE: 'false' }).s3?.forcePathStyle).toBe(false)
  expect(() => readConfig({ S3_REGION: 'eu' })).toThrow('S3_REGION: without S3_BUCKET')
})

test.each([
  ['1000', 1000],
  ['5kb', 5120],
  ['20 GB', 20 * 1024 ** 3],
  ['2TiB', 2 * 1024 ** 4],
])('a limit of %s is %d bytes', (text, bytes) => {
  expect(readConfig({ LUTHIER_PROJECT_DISK_LIMIT: text }).projectDiskLimit).toBe(bytes)
})

test('a role of its own needs a database that others see too', () => {
  for (const LUTHIER_ROLE of ['api', 'worker']) {
    expect(() => readConfig({ LUTHIER_ROLE })).toThrow('set DATABASE_URL')
    const env = { LUTHIER_ROLE, DATABASE_URL: 'postgres://host/name' }
    expect(readConfig(env)).toMatchObject({ role: LUTHIER_ROLE, workerUrl: undefined })
  }
  expect(() => readConfig({ LUTHIER_WORKER_URL: 'somewhere' })).toThrow('LUTHIER_WORKER_URL: ')
})

test('an address of a worker means nothing to another role', () => {
  const env = { LUTHIER_WORKER_URL: 'http://gpu-1:8080', DATABASE_URL: 'postgres://host/name' }
  for (const LUTHIER_ROLE of ['api', 'all'])
    expect(() => readConfig({ ...env, LUTHIER_ROLE })).toThrow('set LUTHIER_ROLE=worker')
  expect(readConfig({ ...env, LUTHIER_ROLE: 'worker' }).workerUrl).toBe('http://gpu-1:8080')
})

test('auto does not stand in a list of devices', () => {
  expect(() => readConfig({ LUTHIER_DEVICE: 'auto,cpu' })).toThrow('stands alone')
})

test('several devices share the processors, and are of one kind', () => {
  const { devices } = readConfig({ LUTHIER_DEVICE: 'cpu,cpu' })
  const threads = Math.max(1, Math.floor(availableParallelism() / 2))
  expect(devices).toEqual({ device: 'cpu', count: 2, threads })
  expect(() => readConfig({ LUTHIER_DEVICE: 'cpu,cuda' })).toThrow('are of one kind')
})
