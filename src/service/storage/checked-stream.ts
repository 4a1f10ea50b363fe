// The bytes of an object on their way out: hashed while they pass, and never waited for without end.

import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { ObjectCorrupt, type ObjectKey, parseKey, StoreUnavailable } from './object-store.ts'

/**
 * Passes the bytes on, and fails where they are not what the key says. The last chunk waits for the verdict, so
 * that who was told a length never takes a corrupt object for a whole one.
 */
export const checkedStream = (key: ObjectKey, source: Readable): Readable =>
  passOn(source, async function* () {
    const hash = createHash('sha256')
    let last: Buffer | undefined
    for await (const chunk of source) {
      hash.update(chunk)
      if (last) yield last
      last = chunk
    }
    const found = hash.digest('hex')
    if (found !== parseKey(key).sha256) throw new ObjectCorrupt(key, found)
    if (last) yield last
  })

/** Fails when `source` gives nothing for so long. A reader that takes its time is no stall. */
export const unlessStalled = (source: Readable, limit_ms: number): Readable =>
  passOn(source, async function* () {
    const stalled = () =>
      source.destroy(new StoreUnavailable(`The store sent nothing for ${limit_ms / 1000} s.`))
    let timer = setTimeout(stalled, limit_ms)
    try {
      for await (const chunk of source) {
        clearTimeout(timer)
        yield chunk
        timer = setTimeout(stalled, limit_ms)
      }
    } finally {
      clearTimeout(timer)
    }
  })

const passOn = (source: Readable, body: () => AsyncGenerator<Buffer>): Readable => {
  const stream = Readable.from(body(), { objectMode: false })
  // A generator that was never begun is ended without a word to what it would have read from.
  return stream.once('close', () => source.destroy())
}
