// A checkpoint as float32 that can be mapped into memory: plain files are pointed at where they lie,
// anything else is converted once into a cache folder, tensor by tensor.

import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, realpath, stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import type { Checkpoint, MappedTensor, MappedWeights } from './checkpoint.ts'
import { optionalTensors, requiredTensors } from './model-config.ts'
import { readSafetensorsHeader } from './safetensors.ts'
import { isRearranged, readTensorChunks, type StoredTensor } from './stored-tensor.ts'
import { writeTensorFile } from './tensor-file.ts'

// Counts up whenever converted bytes would come out otherwise.
const FORMAT_VERSION = 1

/** Every tensor the model computes with, as float32; converts into `cacheDir` if the files are anything else. */
export async function mapWeights(checkpoint: Checkpoint, cacheDir: string): Promise<MappedWeights> {
  const needed = neededTensors(checkpoint)
  const id = await weightsId(checkpoint)
  const tensors =
    (await mapInPlace(needed)) ??
    (await mapConverted(needed, resolve(cacheDir), `${id}.safetensors`))
  return { id, config: checkpoint.config, tensors }
}

/** What the base's converted files are named after: another for other bytes. */
export const weightsId = async (checkpoint: Checkpoint): Promise<string> =>
  `${checkpoint.id}-${await fingerprint(neededTensors(checkpoint))}`

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
async function mapInPlace(needed: readonly StoredTensor[]) {
  if (!needed.every(({ dtype, offset }) => dtype === 'F32' && offset % 4 === 0)) return undefined
  if (needed.some(isRearranged)) return undefined
  return toMapped(needed)
}

async function mapConverted(needed: readonly StoredTensor[], folder: string, name: string) {
  await mkdir(folder, { recursive: true })
  const file = join(folder, name)
  if (!existsSync(file))
    await writeTensorFile(
      file,
      needed.map((tensor) => ({ ...tensor, dtype: 'F32', chunks: () => readTensorChunks(tensor) })),
    )
  const { tensors } = await readSafetensorsHeader(file)
  return toMapped(
    needed.map(({ name }) => {
      const tensor = tensors.get(name)
      if (!tensor) throw new Error(`${basename(file)}: tensor ${name} is missing; delete the file`)
      return tensor
    }),
  )
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
export async function toMapped(
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
