// Writes files of tensors that others map: whole or not at all, in bounded memory.

import { randomUUID } from 'node:crypto'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { DATA_ALIGNMENT, layoutSafetensors } from './safetensors.ts'

export interface TensorSource {
  readonly name: string
  readonly dims: readonly number[]
  readonly dtype: 'F32' | 'I8' | 'U8'
  /** The tensor's values in pieces, in order; a piece is written before the next is asked for. */
  chunks(): AsyncIterable<ArrayBufferView> | Iterable<ArrayBufferView>
}

/**
 * Writes a safetensors file, every tensor aligned to 64 bytes. It is written beside the goal and renamed: whoever
 * comes second replaces a file by an equal one.
 */
export async function writeTensorFile(
  file: string,
  tensors: readonly TensorSource[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const temporary = `${file}.${randomUUID()}.tmp`
  const { header, offsets } = layoutSafetensors(
    tensors,
    { format: 'pt', ...metadata },
    DATA_ALIGNMENT,
  )
  try {
    const handle = await open(temporary, 'wx')
    try {
      await writeFully(handle, header, 0)
      for (const [i, tensor] of tensors.entries()) {
        let at = header.length + offsets[i]!
        for await (const { buffer, byteOffset, byteLength } of tensor.chunks()) {
          await writeFully(handle, new Uint8Array(buffer, byteOffset, byteLength), at)
          at += byteLength
        }
      }
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
    await syncFolder(dirname(file))
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number) {
  let done = 0
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done)
    done += bytesWritten
  }
}

async function syncFolder(folder: string) {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
