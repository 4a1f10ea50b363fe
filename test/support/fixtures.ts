// Golden fixtures as the engine wants them.

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { type LoraLayout, partsOf } from '../../src/engine/models/adapters.ts'
import { readSafetensorsHeader } from '../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../src/engine/weights/stored-tensor.ts'

/** Where a fixture lies. */
export const fixturePath = (name: string) =>
  fileURLToPath(new URL(`../golden/fixtures/${name}`, import.meta.url))

/** A JSON fixture. The script beside it says what is in it; the test says what it expects. */
export const readFixture = async <T>(name: string): Promise<T> =>
  JSON.parse(await readFile(fixturePath(name), 'utf8')) as T

/** One tensor of a fixture, as float32 or integers. */
export async function readFixtureTensor(name: string, tensor: string): Promise<Float32Array> {
  const stored = (await readSafetensorsHeader(fixturePath(name))).tensors.get(tensor)
  if (!stored) throw new Error(`${name} has no tensor ${tensor}`)
  if (stored.dtype !== 'I32') return readTensor(stored)
  const file = await readFile(stored.file)
  return Float32Array.from({ length: stored.bytes / 4 }, (_, i) =>
    file.readInt32LE(stored.offset + 4 * i),
  )
}

/** A fixture with PEFT's names as the flat vector of a layout. */
export async function readFlat(name: string, layout: LoraLayout): Promise<Float32Array> {
  const flat = new Float32Array(layout.parameters)
  for (const { module, kind, from } of partsOf(layout)) {
    const ending = kind === 'lora_magnitude_vector' ? kind : `${kind}.weight`
    flat.set(await readFixtureTensor(name, `base_model.model.${module.name}.${ending}`), from)
  }
  return flat
}

/** max|a − b| / max|b|. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let error = 0
  let size = 0
  for (let i = 0; i < b.length; i++) {
    error = Math.max(error, Math.abs(a[i]! - b[i]!))
    size = Math.max(size, Math.abs(b[i]!))
  }
  return error / size
}
