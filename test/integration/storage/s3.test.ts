import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { CreateMultipartUploadCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { localFile } from '../../../src/service/storage/local-file.ts'
import {
  objectKey,
  putObject,
  StoreUnavailable,
} from '../../../src/service/storage/object-store.ts'
import { objectStoreContract } from '../../support/object-store-contract.ts'
import { openRelay } from '../../support/relay.ts'
import { makeBucket, NO_S3, s3Server, type TestBucket } from '../../support/s3.ts'

const MB = 1024 * 1024
const P = 'proj_1'

describe.skipIf(!s3Server())(`S3 (${NO_S3})`, () => {
  objectStoreContract('S3', async () => {
    const bucket = await makeBucket()
    return {
      // Small enough for the tests' large bodies to be copied in parts.
      store: await bucket.open({ copy_limit: 6 * MB }),
      corrupt: (key) => bucket.corrupt(`projects/${key}`),
      countIncoming: async () =>
        (await bucket.names('incoming/')).length + (await bucket.unfinished()).length,
      [Symbol.asyncDispose]: () => bucket[Symbol.asyncDispose](),
    }
  })

  let bucket: TestBucket
  beforeAll(async () => {
    bucket = await makeBucket()
  })
  afterAll(() => bucket[Symbol.asyncDispose]())

  const bodyOf = (bytes: Uint8Array) => Readable.from([bytes])

  test('a large body is copied by the store in one go as well', async () => {
    const store = await bucket.open()
    const bytes = randomBytes(9 * MB)
    const { sha256 } = await putObject(store, P, bodyOf(bytes))
    expect((await buffer(await store.get(objectKey(P, sha256)))).equals(bytes)).toBe(true)
    expect(await bucket.names('incoming/')).toEqual([])
  })

  test('what was half received is cleared when it is old, and only what bears our names', async () => {
    const { client } = bucket
    const at = { Bucket: bucket.bucket }
    await client.send(new PutObjectCommand({ ...at, Key: 'incoming/left', Body: 'x' }))
    await client.send(new PutObjectCommand({ ...at, Key: 'other/left', Body: 'x' }))
    for (const Key of ['incoming/cut', 'projects/cut', 'other/cut'])
      await client.send(new CreateMultipartUploadCommand({ ...at, Key }))
    const store = await bucket.open()
    await store.clearStale(60_000)
    expect(await bucket.names('incoming/')).toEqual(['incoming/left'])
    expect(await bucket.unfinished()).toHaveLength(3)
    await new Promise((done) => setTimeout(done, 1100))
    await store.clearStale(0)
    expect(await bucket.names('incoming/')).toEqual([])
    expect(await bucket.names('other/')).toEqual(['other/left'])
    expect(await bucket.unfinished()).toEqual(['other/cut'])
  })

  test('a bucket that is not there, or that is not ours, ends the start with its name', async () => {
    await expect(bucket.open({ bucket: 'test-none' })).rejects.toThrow(
      'The bucket test-none (S3_BUCKET) cannot be used: there is no such bucket.',
    )
    const credentials = { accessKeyId: 'test:tester', secretAccessKey: 'wrong' }
    await expect(bucket.open({ credentials })).rejects.toThrow('refuses our credentials')
  })

  test.each(['cut', 'stall'] as const)(
    'an outage (%s) is said within seconds, and over when it is over',
    async (how) => {
      const { hostname, port } = new URL(s3Server()!.endpoint)
      await using relay = await openRelay(hostname, Number(port))
      const store = await bucket.open({
        endpoint: `http://127.0.0.1:${relay.port}`,
        answer_ms: 700,
      })
      const { sha256 } = await putObject(store, P, bodyOf(randomBytes(1000)))
      const large = await store.stage(bodyOf(randomBytes(9 * MB)))
      await relay[how]()
      const began = Date.now()
      for (const attempt of [
        () => store.head(objectKey(P, sha256)),
        () => store.get(objectKey(P, sha256)),
        () => putObject(store, P, bodyOf(randomBytes(1000))),
        () => store.list(P),
        () => large.keep(P),
        () => localFile(store, objectKey(P, sha256)),
      ])
        await expect(attempt()).rejects.toBeInstanceOf(StoreUnavailable)
      expect(Date.now() - began).toBeLessThan(30_000)
      // A start in the middle of it is no failure either.
      await bucket.open({ endpoint: `http://127.0.0.1:${relay.port}`, answer_ms: 300 })
      await relay.restore()
      const key = await large.keep(P)
      expect((await store.head(key))?.bytes).toBe(9 * MB)
      expect(await bucket.names('incoming/')).toEqual([])
    },
  )

  test('copies on this machine are fetched once, dropped when they take too much room, and never from one who reads', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'luthier-cache-'))
    const store = await bucket.open({ cache: { folder, limit_bytes: 250_000 } })
    const keys: string[] = []
    for (let i = 0; i < 3; i++)
      keys.push(objectKey(P, (await putObject(store, P, bodyOf(randomBytes(100_000)))).sha256))
    const copies = () => readdir(join(folder, 'copies'))
    const use = async (key: string) => {
      await using file = await localFile(store, key)
      return (await stat(file.path)).ino
    }
    const held = await localFile(store, keys[0]!)
    const first = await use(keys[1]!)
    expect(await use(keys[1]!)).toBe(first)
    await use(keys[2]!)
    expect((await copies()).sort()).toEqual(
      keys
        .slice(1)
        .map((k) => k.replace('/', '.'))
        .sort(),
    )
    expect((await stat(held.path)).size).toBe(100_000)
    await held[Symbol.asyncDispose]()
    expect(await readdir(join(folder, 'in-use'))).toEqual([])

    // A copy that was spoilt on disk is fetched again.
    await writeFile(join(folder, 'copies', keys[1]!.replace('/', '.')), 'spoilt')
    await using again = await localFile(store, keys[1]!)
    expect((await stat(again.path)).size).toBe(100_000)
    await rm(folder, { recursive: true })
  })
})
