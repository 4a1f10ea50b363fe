// The S3 server that TEST_S3_ENDPOINT names (test/support/swift.sh starts one), a fresh bucket for each asker.

import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  AbortMultipartUploadCommand,
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3'
import type { ObjectStore } from '../../src/service/storage/object-store.ts'
import { openS3Store, type S3Options } from '../../src/service/storage/s3.ts'

/** Undefined where no server is given; in CI that is a failure. */
export const s3Server = () => {
  const { TEST_S3_ENDPOINT: endpoint, TEST_S3_REGION: region, CI } = process.env
  if (!endpoint) {
    if (CI)
      throw new Error(
        'CI runs the S3 tests, but TEST_S3_ENDPOINT is not set (test/support/swift.sh).',
      )
    return undefined
  }
  return {
    endpoint,
    region: region ?? 'us-east-1',
    credentials: {
      accessKeyId: process.env.TEST_S3_ACCESS_KEY_ID ?? '',
      secretAccessKey: process.env.TEST_S3_SECRET_ACCESS_KEY ?? '',
    },
  }
}

/** The sentence that a test is skipped with. */
export const NO_S3 = 'needs an S3 server: TEST_S3_ENDPOINT, as test/support/swift.sh starts one'

export interface TestBucket extends AsyncDisposable {
  readonly bucket: string
  readonly client: S3Client
  /** A folder for copies on this machine. */
  readonly cache: string
  /** Opens a store on the bucket; `options` replaces what a test wants otherwise. */
  open(options?: Partial<S3Options>): Promise<ObjectStore>
  /** The names of all that lies in it, and of uploads that are not complete. */
  names(prefix?: string): Promise<string[]>
  unfinished(): Promise<string[]>
  /** Flips the last byte of what bears this name. */
  corrupt(name: string): Promise<void>
}

export const makeBucket = async (): Promise<TestBucket> => {
  const server = s3Server()
  if (!server) throw new Error(NO_S3)
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true'
  const client = new S3Client({
    ...server,
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  })
  const bucket = `test-${randomBytes(6).toString('hex')}`
  const folder = await mkdtemp(join(tmpdir(), 'luthier-s3-cache-'))
  const at = { Bucket: bucket }
  await client.send(new CreateBucketCommand(at))
  const unfinished = async () =>
    (await client.send(new ListMultipartUploadsCommand(at))).Uploads ?? []
  const names = async (Prefix = '') => {
    const found: string[] = []
    for (let token: string | undefined; ; ) {
      const page = await client.send(
        new ListObjectsV2Command({
          ...at,
          Prefix,
          ...(token !== undefined && { ContinuationToken: token }),
        }),
      )
      found.push(...(page.Contents ?? []).map(({ Key }) => Key ?? ''))
      token = page.NextContinuationToken
      if (token === undefined) return found
    }
  }
  return {
    bucket,
    client,
    cache: folder,
    open: (options = {}) =>
      openS3Store({
        ...server,
        bucket,
        forcePathStyle: true,
        cache: { folder, limit_bytes: 1e9 },
        ...options,
      }),
    names,
    unfinished: async () => (await unfinished()).map(({ Key }) => Key ?? ''),
    corrupt: async (name) => {
      const { Body } = await client.send(new GetObjectCommand({ ...at, Key: name }))
      const bytes = await Body!.transformToByteArray()
      bytes[bytes.length - 1]! ^= 0xff
      await client.send(new PutObjectCommand({ ...at, Key: name, Body: bytes }))
    },
    [Symbol.asyncDispose]: async () => {
      for (const { Key, UploadId } of await unfinished())
        await client.send(new AbortMultipartUploadCommand({ ...at, Key, UploadId }))
      for (const Key of await names()) await client.send(new DeleteObjectCommand({ ...at, Key }))
      await client.send(new DeleteBucketCommand(at)).catch(() => {})
      client.destroy()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
