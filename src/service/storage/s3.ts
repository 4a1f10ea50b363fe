// Objects in a bucket of S3 or of what speaks like it. The only file that knows the AWS SDK.
// Bytes go to `incoming/` while their sum is unknown and are copied to their name by the store itself;
// what fits into one part waits in memory and goes to its name at once.

import { createHash, randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  UploadPartCopyCommand,
} from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { checkedStream, unlessStalled } from './checked-stream.ts'
import { type LocalCacheOptions, openLocalCache } from './local-cache.ts'
import {
  type ByteRange,
  type ObjectInfo,
  type ObjectKey,
  ObjectMissing,
  type ObjectStore,
  objectKey,
  parseKey,
  type Staged,
  StoreUnavailable,
} from './object-store.ts'

export interface S3Settings {
  readonly bucket: string
  /** Undefined: AWS itself. */
  readonly endpoint: string | undefined
  /** Undefined: the SDK finds it, in AWS_REGION or its profile. */
  readonly region: string | undefined
  readonly forcePathStyle: boolean
}

export interface S3Options extends S3Settings {
  readonly cache: LocalCacheOptions
  /** Otherwise the SDK finds them: environment, profile, role of the machine. */
  readonly credentials?: { accessKeyId: string; secretAccessKey: string }
  /** What one copy may hold, and what the parts of larger ones do; AWS allows 5 GB. */
  readonly copy_limit?: number
  /** How long an answer without bytes may take; what moves bytes gets more by their number. */
  readonly answer_ms?: number
}

const PART = 8 * 1024 * 1024
const COPY_LIMIT = 1024 * 1024 * 1024
const STALL_MS = 30_000
/** Bytes a millisecond that any network and any store must manage, before they count as not answering. */
const SLOWEST_UPLOAD = 500
const SLOWEST_COPY = 5000

/** Opens the bucket. One that cannot be reached just now is no error; one that is not there or not ours is. */
export const openS3Store = async (options: S3Options): Promise<ObjectStore> => {
  const { bucket, copy_limit = COPY_LIMIT, answer_ms = 5000 } = options
  const client = connect(options)
  const at = { Bucket: bucket }
  const within = (bytes: number, pace: number) => ({ requestTimeout: answer_ms + bytes / pace })

  const remove = async (name: string) => {
    await told(client.send(new DeleteObjectCommand({ ...at, Key: name }), within(0, 1)))
  }

  /** Of the store's own knowledge; undefined when there is none of that name. */
  const sizeOf = async (name: string): Promise<number | undefined> => {
    try {
      const found = await told(
        client.send(new HeadObjectCommand({ ...at, Key: name }), within(0, 1)),
      )
      return found.ContentLength ?? 0
    } catch (error) {
      if (isMissing(error)) return undefined
      throw error
    }
  }

  const copy = async (from: string, to: string, bytes: number) => {
    const CopySource = `${bucket}/${from}`
    if (bytes <= copy_limit) {
      const command = new CopyObjectCommand({ ...at, Key: to, CopySource })
      await told(client.send(command, within(bytes, SLOWEST_COPY)))
      return
    }
    const { UploadId } = await told(
      client.send(new CreateMultipartUploadCommand({ ...at, Key: to }), within(0, 1)),
    )
    try {
      const Parts: { PartNumber: number; ETag: string | undefined }[] = []
      for (let start = 0; start < bytes; start += copy_limit) {
        const end = Math.min(start + copy_limit, bytes)
        const PartNumber = Parts.length + 1
        const range = `bytes=${start}-${end - 1}`
        const command = new UploadPartCopyCommand({
          ...at,
          Key: to,
          UploadId,
          PartNumber,
          CopySource,
          CopySourceRange: range,
        })
        const { CopyPartResult } = await told(
          client.send(command, within(end - start, SLOWEST_COPY)),
        )
        Parts.push({ PartNumber, ETag: CopyPartResult?.ETag })
      }
      const MultipartUpload = { Parts }
      const complete = new CompleteMultipartUploadCommand({
        ...at,
        Key: to,
        UploadId,
        MultipartUpload,
      })
      await told(client.send(complete, within(bytes, SLOWEST_COPY)))
    } catch (error) {
      const abort = new AbortMultipartUploadCommand({ ...at, Key: to, UploadId })
      await client.send(abort, within(0, 1)).catch(() => {})
      throw error
    }
  }

  const stageSmall = (body: Buffer): Staged => ({
    sha256: createHash('sha256').update(body).digest('hex'),
    bytes: body.length,
    keep: async function (project_id) {
      const key = objectKey(project_id, this.sha256)
      const command = new PutObjectCommand({ ...at, Key: nameOf(key), Body: body })
      await told(client.send(command, within(body.length, SLOWEST_UPLOAD)))
      return key
    },
    discard: async () => {},
  })

  const stageLarge = async (body: AsyncIterable<Uint8Array>): Promise<Staged> => {
    const name = `${INCOMING}${randomUUID()}`
    const { sum, stream, failure } = counted(body)
    const upload = new Upload({
      client,
      params: { ...at, Key: name, Body: stream },
      partSize: PART,
      queueSize: 2,
    })
    try {
      await told(upload.done())
    } catch (error) {
      // What went wrong with the body says more than what the SDK makes of it.
      throw failure() ?? error
    }
    const { sha256, bytes } = sum()
    let isThere = true
    const discard = async () => {
      if (!isThere) return
      isThere = false
      // What stays behind is cleared later.
      await remove(name).catch(() => {})
    }
    return {
      sha256,
      bytes,
      keep: async (project_id) => {
        const key = objectKey(project_id, sha256)
        await copy(name, nameOf(key), bytes)
        const stored = await sizeOf(nameOf(key))
        if (stored !== bytes)
          throw new Error(`The store has ${stored} bytes of ${key}, but ${bytes} were sent.`)
        await discard()
        return key
      },
      discard,
    }
  }

  const stage = async (body: AsyncIterable<Uint8Array>): Promise<Staged> => {
    const { first, rest } = await splitAt(body, PART)
    return rest ? stageLarge(rest) : stageSmall(first)
  }

  const get = async (key: ObjectKey, range?: ByteRange): Promise<Readable> => {
    const Range = range && { Range: `bytes=${range.start}-${range.end ?? ''}` }
    const command = new GetObjectCommand({ ...at, Key: nameOf(key), ...Range })
    const { Body } = await told(client.send(command, within(0, 1))).catch((cause: unknown) => {
      throw isMissing(cause) ? new ObjectMissing(key, { cause }) : cause
    })
    if (!(Body instanceof Readable)) throw new Error(`The store answered without bytes for ${key}.`)
    const stream = unlessStalled(Body, STALL_MS)
    return range ? stream : checkedStream(key, stream)
  }

  const head = async (key: ObjectKey): Promise<ObjectInfo | undefined> => {
    const bytes = await sizeOf(nameOf(key))
    return bytes === undefined ? undefined : { key, bytes }
  }

  const list: ObjectStore['list'] = async (project_id, cursor) => {
    const Prefix = `${PROJECTS}${project_id}/`
    const StartAfter = cursor === undefined ? {} : { StartAfter: `${Prefix}${cursor}` }
    const page = await told(
      client.send(new ListObjectsV2Command({ ...at, Prefix, ...StartAfter }), within(0, 1)),
    )
    const objects = (page.Contents ?? []).map(({ Key = '', Size = 0 }) => ({
      key: Key.slice(PROJECTS.length),
      bytes: Size,
    }))
    const last = objects.at(-1)
    return page.IsTruncated && last ? { objects, cursor: parseKey(last.key).sha256 } : { objects }
  }

  const clearStale = async (age_ms: number): Promise<void> => {
    const isStale = (since: Date | undefined) =>
      since !== undefined && Date.now() - since.getTime() > age_ms
    for (let token: string | undefined; ; ) {
      const page = await told(
        client.send(
          new ListObjectsV2Command({
            ...at,
            Prefix: INCOMING,
            ...(token !== undefined && { ContinuationToken: token }),
          }),
          within(0, 1),
        ),
      )
      for (const { Key, LastModified } of page.Contents ?? [])
        if (Key !== undefined && isStale(LastModified)) await remove(Key)
      token = page.NextContinuationToken
      if (token === undefined) break
    }
    let marker: { KeyMarker?: string; UploadIdMarker?: string } | undefined = {}
    while (marker) {
      const page: Awaited<ReturnType<typeof listUploads>> = await listUploads(marker)
      for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
        // The bucket may be shared: only what bears our names.
        const isOurs = Key?.startsWith(INCOMING) || Key?.startsWith(PROJECTS)
        if (isOurs && isStale(Initiated))
          await told(
            client.send(new AbortMultipartUploadCommand({ ...at, Key, UploadId }), within(0, 1)),
          ).catch(unlessGone)
      }
      const { IsTruncated, NextKeyMarker, NextUploadIdMarker } = page
      marker = IsTruncated && NextKeyMarker !== undefined ? { KeyMarker: NextKeyMarker } : undefined
      if (marker && NextUploadIdMarker !== undefined) marker.UploadIdMarker = NextUploadIdMarker
    }
  }
  const listUploads = (marker: { KeyMarker?: string; UploadIdMarker?: string }) =>
    told(client.send(new ListMultipartUploadsCommand({ ...at, ...marker }), within(0, 1)))

  await checkBucket(client, bucket, within(0, 1))
  return {
    stage,
    get,
    head,
    list,
    delete: (key) => remove(nameOf(key)),
    localFile: await openLocalCache(options.cache, get),
    clearStale,
  }
}

const INCOMING = 'incoming/'
const PROJECTS = 'projects/'

const nameOf = (key: ObjectKey): string => {
  const { project_id, sha256 } = parseKey(key)
  return `${PROJECTS}${project_id}/${sha256}`
}

const connect = ({ endpoint, region, forcePathStyle, credentials, answer_ms }: S3Options) => {
  // It warns about the Node version on the standard error of every process; versions are ours to pin.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true'
  // What is not AWS does not know its newer checksums; our own sum is checked on reading in any case.
  const checksums = endpoint === undefined ? 'WHEN_SUPPORTED' : 'WHEN_REQUIRED'
  const resolvedRegion = region ?? (endpoint === undefined ? undefined : 'us-east-1')
  return new S3Client({
    forcePathStyle,
    requestChecksumCalculation: checksums,
    responseChecksumValidation: checksums,
    maxAttempts: 2,
    requestHandler: {
      connectionTimeout: answer_ms ?? 3000,
      // Of what the SDK's helpers send, which name none.
      requestTimeout: (answer_ms ?? 5000) + PART / SLOWEST_UPLOAD,
      throwOnRequestTimeout: true,
      httpAgent: { keepAlive: true, maxSockets: 256 },
      httpsAgent: { keepAlive: true, maxSockets: 256 },
    },
    ...(endpoint !== undefined && { endpoint }),
    ...(resolvedRegion !== undefined && { region: resolvedRegion }),
    ...(credentials && { credentials }),
  })
}

const checkBucket = async (client: S3Client, bucket: string, limit: { requestTimeout: number }) => {
  try {
    await told(client.send(new HeadBucketCommand({ Bucket: bucket }), limit))
  } catch (cause) {
    // It may come back while we run, and requests are told until then.
    if (cause instanceof StoreUnavailable) return
    const status = statusOf(cause)
    const why =
      status === 404
        ? 'there is no such bucket'
        : status === 403 || status === 400
          ? 'the store refuses our credentials'
          : String(cause)
    throw new Error(`The bucket ${bucket} (S3_BUCKET) cannot be used: ${why}.`, { cause })
  }
}

/** Says of an error of the SDK whether it may pass. */
const told = <T>(asked: Promise<T>): Promise<T> =>
  asked.catch((cause: unknown) => {
    const status = statusOf(cause)
    const isAnswer = status !== undefined && status < 500 && status !== 408 && status !== 429
    // Without a status nobody answered; but our own mistakes have none either.
    const isOurs = cause instanceof TypeError || cause instanceof RangeError || isCredentials(cause)
    if (isAnswer || isOurs || cause instanceof StoreUnavailable) throw cause
    throw new StoreUnavailable('The object store cannot be reached or does not answer.', { cause })
  })

const statusOf = (error: unknown): number | undefined =>
  (error as { $metadata?: { httpStatusCode?: number } } | undefined)?.$metadata?.httpStatusCode

const isCredentials = (error: unknown): boolean =>
  error instanceof Error && error.name === 'CredentialsProviderError'

/** HEAD has no body to say what is missing, but that the bucket is there was seen at start. */
const isMissing = (error: unknown): boolean =>
  error instanceof Error && (error.name === 'NoSuchKey' || error.name === 'NotFound')

const unlessGone = (error: unknown): undefined => {
  if (statusOf(error) !== 404) throw error
}

/** Counts and hashes what passes, and remembers why the body broke. */
const counted = (body: AsyncIterable<Uint8Array>) => {
  const hash = createHash('sha256')
  let bytes = 0
  let broken: unknown
  async function* pass() {
    try {
      for await (const chunk of body) {
        hash.update(chunk)
        bytes += chunk.byteLength
        yield chunk
      }
    } catch (error) {
      broken = error
      throw error
    }
  }
  return {
    stream: Readable.from(pass(), { objectMode: false }),
    sum: () => ({ sha256: hash.digest('hex'), bytes }),
    failure: () => broken,
  }
}

/** Reads so many bytes; `rest` is all of the body again, where it is longer. */
const splitAt = async (body: AsyncIterable<Uint8Array>, limit: number) => {
  const source = body[Symbol.asyncIterator]()
  const chunks: Uint8Array[] = []
  let bytes = 0
  while (bytes <= limit) {
    const { done, value } = await source.next()
    if (done) return { first: Buffer.concat(chunks), rest: undefined }
    chunks.push(value)
    bytes += value.byteLength
  }
  async function* rest() {
    try {
      for (let chunk = chunks.shift(); chunk; chunk = chunks.shift()) yield chunk
      for (;;) {
        const { done, value } = await source.next()
        if (done) return
        yield value
      }
    } finally {
      await source.return?.()
    }
  }
  return { first: Buffer.alloc(0), rest: rest() }
}
