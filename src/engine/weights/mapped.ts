// A checkpoint as float32 that can be mapped into memory: plain files are pointed at where they lie,
// anything else is converted once into a cache folder, tensor by tensor.

import { createHash, randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { type FileHandle, mkdir, open, realpath, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import type { Checkpoint, MappedTensor, MappedWeights } from './checkpoint.ts'
import { optionalTensors, requiredTensors } from './model-config.ts'
import { DATA_ALIGNMENT, layoutSafetensors, readSafetensorsHeader } from './safetensors.ts'
import { isRearranged, readTensorChunks, type StoredTensor } from './stored-tensor.ts'

// Counts up whenever converted bytes would come out otherwise.
const FORMAT_VERSION = 1

/** Every tensor the model computes with, as float32; converts into `cacheDir` if the files are anything else. */
export async function mapWeights(checkpoint: Checkpoint, cacheDir: string): Promise<MappedWeights> {
  const needed = neededTensors(checkpoint)
  return (await mapInPlace(checkpoint, needed)) ?? mapConverted(checkpoint, needed, cacheDir)
}

function neededTensors({ id, config, tensors }: Checkpoint): StoredTensor[] {
  const needed = [...requiredTensors(config).keys()].map((name) => {
    const tensor = tensors.get(name)
    if (!tensor) throw new Error(`${id}: tensor ${name} is missing`)
    return tensor
  })
  for (const name of optionalTensors(config).keys()) {
    const tensor = tensors.get(name)
    if (tensor) needed.push(tensor)
  }
  return needed
}

/** Possible when all is aligned float32. */
async function mapInPlace(
  { config }: Checkpoint,
  needed: readonly StoredTensor[],
): Promise<MappedWeights | undefined> {
  if (!needed.every(({ dtype, offset }) => dtype === 'F32' && offset % 4 === 0)) return undefined
  if (needed.some(isRearranged)) return undefined
  return { config, tensors: await toMapped(needed) }
}

async function mapConverted(
  checkpoint: Checkpoint,
  needed: readonly StoredTensor[],
  cacheDir: string,
): Promise<MappedWeights> {
  const folder = resolve(cacheDir)
  await mkdir(folder, { recursive: true })
  const name = `${checkpoint.id}-${await fingerprint(needed)}.safetensors`
  const file = join(folder, name)
  if (!existsSync(file)) await convert(needed, file)

  const { tensors } = await readSafetensorsHeader(file)
  const converted = needed.map(({ name }) => {
    const tensor = tensors.get(name)
    if (!tensor) throw new Error(`${basename(file)}: tensor ${name} is missing; delete the file`)
    return tensor
  })
  return { config: checkpoint.config, tensors: await toMapped(converted) }
}

/** Writes beside the goal and renames: whoever comes second replaces a file by an equal one. */
async function convert(tensors: readonly StoredTensor[], file: string) {
  const temporary = `${file}.${randomUUID()}.tmp`
  const { header, offsets } = layoutSafetensors(tensors, { format: 'pt' }, DATA_ALIGNMENT)
  try {
    const handle = await open(temporary, 'wx')
    try {
      await writeFully(handle, header, 0)
      for (const [i, tensor] of tensors.entries()) {
        let at = header.length + offsets[i]!
        for await (const chunk of readTensorChunks(tensor)) {
          await writeFully(
            handle,
            new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength),
            at,
          )
          at += chunk.byteLength
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

async function fingerprint(tensors: readonly StoredTensor[]): Promise<string> {
  const hash = createHash('sha256').update(`luthier ${FORMAT_VERSION}`)
  for (const file of [...new Set(tensors.map((tensor) => tensor.file))].sort()) {
    const { size, mtimeNs } = await stat(file, { bigint: true })
    hash.update(`\n${await realpath(file)} ${size} ${mtimeNs}`)
  }
  return hash.digest('hex').slice(0, 16)
}

/** Links are followed now, so that a session's files stay the ones that were checked. */
async function toMapped(
  tensors: readonly StoredTensor[],
): Promise<ReadonlyMap<string, MappedTensor>> {
  const real = new Map<string, string>()
  for (const { file } of tensors) if (!real.has(file)) real.set(file, await realpath(file))
  return new Map(
    tensors.map(({ name, dims, file, offset, bytes }) => [
      name,
      { name, dims, file: real.get(file)!, offset, bytes },
    ]),
  )
}
