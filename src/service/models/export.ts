// Models on their way out: the export thread's files as one stream of bytes. Touches no tensor.

import type {
  ExportEvent,
  ExportRequest,
  HashEvent,
  HashRequest,
} from '../../engine/export/request.ts'
import { spawn } from '../../engine/runtime/thread.ts'
import { TAR_END, tarHeader, tarPadding } from './tar.ts'

const WORKER = new URL('../../engine/export/worker.ts', import.meta.url)

/** A file that is added when all others are known by their hashes. */
export interface LastFile {
  readonly path: string
  readonly bytes: Uint8Array
}
export type Seal = (files: { path: string; sha256: string; bytes: number }[]) => Promise<LastFile[]>

/** The thread's events; it ends when they do, and when nobody reads on. */
export async function* exportEvents(
  request: ExportRequest,
  signal?: AbortSignal,
): AsyncGenerator<ExportEvent, void, undefined> {
  await using thread = spawn<ExportRequest, ExportEvent>(WORKER)
  yield* thread.run(request, signal)
}

/** All files as one tar archive. */
export async function* tarOf(
  events: AsyncIterable<ExportEvent>,
  seal: Seal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const files: { path: string; sha256: string; bytes: number }[] = []
  let size = 0
  for await (const event of events)
    switch (event.type) {
      case 'file':
        size = event.bytes
        yield tarHeader(event.path, size)
        break
      case 'piece':
        yield event.bytes
        break
      case 'file_end':
        files.push({ path: event.path, sha256: event.sha256, bytes: size })
        yield tarPadding(size)
        break
      default:
        event satisfies never
    }
  for (const { path, bytes } of await seal(files)) {
    yield tarHeader(path, bytes.length)
    yield bytes
    yield tarPadding(bytes.length)
  }
  yield TAR_END
}

/** The hash of every file of a base model, by its name. */
export async function hashesOf(base_path: string): Promise<Record<string, string>> {
  await using thread = spawn<HashRequest, HashEvent>(WORKER)
  const files: Record<string, string> = {}
  for await (const { path, sha256 } of thread.run({ hash: base_path })) files[path] = sha256
  return files
}
