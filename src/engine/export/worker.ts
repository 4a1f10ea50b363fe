// The export thread's entry: reads, folds, quantises and hashes, a piece at a time as fast as its reader takes them.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { serve } from '../runtime/thread.ts'
import { exportFiles } from './export.ts'
import type { ExportEvent, ExportRequest, HashEvent, HashRequest } from './request.ts'

serve<ExportRequest | HashRequest, ExportEvent | HashEvent>(
  async function* (request, { signal }) {
    if ('hash' in request) return yield* hashes(request.hash)
    for (const { path, bytes, chunks } of await exportFiles(request)) {
      yield { type: 'file', path, bytes }
      const hash = createHash('sha256')
      let sent = 0
      for await (const piece of chunks()) {
        signal.throwIfAborted()
        hash.update(piece)
        sent += piece.length
        yield { type: 'piece', bytes: piece }
      }
      if (sent !== bytes) throw new Error(`${path}: ${sent} bytes were made of ${bytes}`)
      yield { type: 'file_end', path, sha256: hash.digest('hex') }
    }
  },
  { ahead: 2 },
)

async function* hashes(model: string): AsyncGenerator<HashEvent> {
  const folder = (await stat(model)).isDirectory()
  const files = folder
    ? (await readdir(model, { withFileTypes: true }))
        .filter(
          (entry) => !entry.isDirectory() && /\.(safetensors|json|txt|jinja)$/.test(entry.name),
        )
        .map(({ name }) => join(model, name))
        .sort()
    : [model]
  for (const file of files) {
    const hash = createHash('sha256')
    for await (const piece of createReadStream(file, { highWaterMark: 2 ** 20 })) hash.update(piece)
    yield { type: 'hashed', path: basename(file), sha256: hash.digest('hex') }
  }
}
