// Where a test's objects lie: a folder of its own, or with TEST_OBJECTS=s3 a bucket of its own.

import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openFolderStore } from '../../src/service/storage/folder.ts'
import type { ObjectStore } from '../../src/service/storage/object-store.ts'
import type { S3Options } from '../../src/service/storage/s3.ts'
import { makeBucket, s3Server } from './s3.ts'

export const onS3 = process.env.TEST_OBJECTS === 's3'

export interface TestObjects extends AsyncDisposable {
  readonly store: ObjectStore
  /** For a process that opens it again. */
  readonly place: { folder: string } | { bucket: string; cache: string }
  /** `<project id>/<sha256>` of all objects, and the names of what is half received. */
  stored(): Promise<string[]>
}

/** A bucket of its own, asked as `options` say. */
export const openBucket = async (options: Partial<S3Options> = {}): Promise<TestObjects> => {
  const bucket = await makeBucket()
  return {
    store: await bucket.open(options),
    place: { bucket: bucket.bucket, cache: bucket.cache },
    stored: async () => {
      const names = [...(await bucket.names()), ...(await bucket.unfinished())]
      return names.map((name) => name.replace(/^projects\//, '')).sort()
    },
    [Symbol.asyncDispose]: () => bucket[Symbol.asyncDispose](),
  }
}

export const openObjects = async (): Promise<TestObjects> => {
  if (onS3) return openBucket()
  const folder = await mkdtemp(join(tmpdir(), 'luthier-objects-'))
  return {
    store: await openFolderStore(folder),
    place: { folder },
    stored: async () => {
      const found = await readdir(folder, { recursive: true, withFileTypes: true })
      return found
        .filter((entry) => entry.isFile())
        .map(({ parentPath, name }) => {
          const path = join(parentPath, name).slice(folder.length + 1)
          return path.replace(/^projects\/([^/]+)\/..\//, '$1/')
        })
        .sort()
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  }
}

/** The settings of a server in a process of its own, the names of all that it stored, what damages one, and what removes its bucket. */
export const objectSettings = async (
  home: string,
): Promise<{
  env: Record<string, string>
  stored: () => Promise<string[]>
  corrupt: (sha256: string) => Promise<void>
  remove: () => Promise<void>
}> => {
  if (!onS3) {
    const stored = async () => {
      const found = await readdir(join(home, 'objects'), { recursive: true, withFileTypes: true })
      return found.filter((entry) => entry.isFile()).map((entry) => entry.name)
    }
    const corrupt = async (sha256: string) => {
      const root = join(home, 'objects')
      const names = await readdir(root, { recursive: true })
      const path = join(root, onlyOne(names, sha256))
      const bytes = await readFile(path)
      bytes[bytes.length - 1]! ^= 0xff
      await writeFile(path, bytes)
    }
    return { env: {}, stored, corrupt, remove: async () => {} }
  }
  const { endpoint, region, credentials } = s3Server()!
  const bucket = await makeBucket()
  return {
    env: {
      S3_BUCKET: bucket.bucket,
      S3_ENDPOINT: endpoint,
      S3_REGION: region,
      S3_FORCE_PATH_STYLE: 'true',
      AWS_ACCESS_KEY_ID: credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
    },
    stored: async () => [...(await bucket.names()), ...(await bucket.unfinished())],
    corrupt: async (sha256) => bucket.corrupt(onlyOne(await bucket.names(), sha256)),
    remove: async () => bucket[Symbol.asyncDispose](),
  }
}

function onlyOne(names: readonly string[], sha256: string): string {
  const [name, ...others] = names.filter((name) => name.endsWith(sha256))
  if (name === undefined || others.length > 0)
    throw new Error(`${others.length + Number(name !== undefined)} objects are named ${sha256}.`)
  return name
}
