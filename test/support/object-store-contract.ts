// What every ObjectStore must do: one suite, run against each driver.

import { createHash, randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { localFile } from '../../src/service/storage/local-file.ts'
import {
  ObjectCorrupt,
  ObjectMissing,
  type ObjectStore,
  objectKey,
  putObject,
} from '../../src/service/storage/object-store.ts'

/** A store made for the suite, and a way to look and to do harm behind its back. */
export interface StoreUnderTest extends AsyncDisposable {
  readonly store: ObjectStore
  /** Overwrites the first byte of a stored object. */
  corrupt(key: string): Promise<void>
  /** How many uploads lie half done. */
  countIncoming(): Promise<number>
}

const P = 'proj_1'
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const bodyOf = (...chunks: (string | Uint8Array)[]) =>
  Readable.from(chunks.map((c) => Buffer.from(c)))

export const objectStoreContract = (name: string, open: () => Promise<StoreUnderTest>): void => {
  describe(`ObjectStore: ${name}`, () => {
    let made: StoreUnderTest
    let store: ObjectStore
    beforeAll(async () => {
      made = await open()
      store = made.store
    })
    afterAll(() => made[Symbol.asyncDispose]())

    const put = (bytes: Uint8Array, project = P) => putObject(store, project, bodyOf(bytes))
    const read = async (key: string) => buffer(await store.get(key))

    test('what was put is got back, by its own SHA-256', async () => {
      const bytes = randomBytes(3_000_000)
      const put1 = await put(bytes)
      expect(put1).toEqual({ sha256: sha256(bytes), bytes: bytes.length })
      const key = objectKey(P, put1.sha256)
      expect(await store.head(key)).toEqual({ key, bytes: bytes.length })
      expect((await read(key)).equals(bytes)).toBe(true)
    })

    test('a large body in small pieces is got back whole', async () => {
      const bytes = randomBytes(17_000_000)
      async function* pieces() {
        for (let i = 0; i < bytes.length; i += 65_000) yield bytes.subarray(i, i + 65_000)
      }
      const { sha256: sum } = await putObject(store, P, pieces())
      expect(sum).toBe(sha256(bytes))
      expect((await read(objectKey(P, sum))).equals(bytes)).toBe(true)
      expect(await made.countIncoming()).toBe(0)
    })

    test('an object may be empty', async () => {
      const { sha256: sum, bytes } = await put(Buffer.alloc(0))
      expect(bytes).toBe(0)
      expect(await read(objectKey(P, sum))).toHaveLength(0)
    })

    test('a range has its first and last byte', async () => {
      const { sha256: sum } = await put(Buffer.from('0123456789'))
      const get = async (start: number, end?: number) =>
        (
          await buffer(
            await store.get(objectKey(P, sum), end === undefined ? { start } : { start, end }),
          )
        ).toString()
      expect(await get(2, 4)).toBe('234')
      expect(await get(7)).toBe('789')
      expect(await get(0, 0)).toBe('0')
    })

    test('an object belongs to its project', async () => {
      const { sha256: sum } = await put(Buffer.from('mine'))
      expect(await store.head(objectKey('proj_2', sum))).toBeUndefined()
      await put(Buffer.from('mine'), 'proj_2')
      await store.delete(objectKey(P, sum))
      expect(await read(objectKey('proj_2', sum))).toEqual(Buffer.from('mine'))
    })

    test('the same bytes put twice, at once too, are one object', async () => {
      const puts = await Promise.all([1, 2, 3, 4].map(() => put(Buffer.from('same'), 'proj_same')))
      expect(new Set(puts.map((p) => p.sha256)).size).toBe(1)
      expect((await store.list('proj_same')).objects).toHaveLength(1)
    })

    test('a missing object is an error that says so', async () => {
      const key = objectKey(P, 'f'.repeat(64))
      expect(await store.head(key)).toBeUndefined()
      await expect(store.get(key)).rejects.toBeInstanceOf(ObjectMissing)
      await expect(store.delete(key)).resolves.toBeUndefined()
    })

    test('a corrupt object fails at the end of the stream and is no local file', async () => {
      const { sha256: sum } = await put(randomBytes(600_000))
      const key = objectKey(P, sum)
      await made.corrupt(key)
      await expect(read(key)).rejects.toBeInstanceOf(ObjectCorrupt)
      await expect(localFile(store, key)).rejects.toBeInstanceOf(ObjectCorrupt)
    })

    test('a local file has the bytes', async () => {
      const bytes = randomBytes(100_000)
      const { sha256: sum } = await put(bytes)
      await using file = await localFile(store, objectKey(P, sum))
      expect((await readFile(file.path)).equals(bytes)).toBe(true)
    })

    test.each([1, 30])('a body that breaks after %d pieces leaves nothing behind', async (n) => {
      async function* broken() {
        for (let i = 0; i < n; i++) yield Buffer.alloc(600_000)
        throw new Error('cut')
      }
      await expect(store.stage(broken())).rejects.toThrow('cut')
      expect(await made.countIncoming()).toBe(0)
    })

    test('what is discarded leaves nothing, what is kept stays', async () => {
      const staged = await store.stage(bodyOf('a', 'b'))
      await staged.discard()
      expect(await made.countIncoming()).toBe(0)
      expect(await store.head(objectKey(P, staged.sha256))).toBeUndefined()

      const kept = await store.stage(bodyOf('c', 'd'))
      const key = await kept.keep(P)
      await kept.discard()
      expect((await read(key)).toString()).toBe('cd')
      expect(await made.countIncoming()).toBe(0)

      const large = await store.stage(bodyOf(randomBytes(9_000_000)))
      expect(await made.countIncoming()).toBe(1)
      await large.discard()
      expect(await made.countIncoming()).toBe(0)
    })

    test('a list walks all objects of a project once', async () => {
      const sums = new Set<string>()
      for (let i = 0; i < 7; i++) sums.add((await put(Buffer.from(`n${i}`), 'proj_list')).sha256)
      const found: string[] = []
      let cursor: string | undefined
      do {
        const page = await store.list('proj_list', cursor)
        found.push(...page.objects.map((o) => o.key))
        cursor = page.cursor
      } while (cursor !== undefined)
      expect(found).toEqual([...sums].sort().map((sum) => objectKey('proj_list', sum)))
      // A cursor in the middle goes on behind it.
      const rest = await store.list('proj_list', [...sums].sort()[2])
      expect(rest.objects.map((o) => o.key)).toEqual(found.slice(3))
    })

    test.each(['../x', 'proj_1/../../etc/passwd', `a/b/${'0'.repeat(64)}`, ''])(
      'a key that is no key opens nothing: %j',
      async (key) => {
        await expect(store.get(key)).rejects.toThrow('no key')
      },
    )
  })
}
