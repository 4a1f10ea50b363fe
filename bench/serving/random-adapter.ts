// An adapter of no meaning, for loads that want many: random and small, so that answers stay answers.

import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  adapterFromFlat,
  initialAdapter,
  loraLayout,
  partsOf,
} from '../../src/engine/models/adapters.ts'
import { writeAdapter, writeAdapterConfig } from '../../src/engine/weights/adapter.ts'
import type { MappedWeights } from '../../src/engine/weights/checkpoint.ts'

export interface RandomAdapter {
  readonly seed: number
  readonly rank: number
  readonly target_modules: readonly string[]
}

/** Written into `folder` as PEFT has it, unless it lies there; the path of its weights. */
export async function randomAdapter(
  weights: MappedWeights,
  folder: string,
  { seed, rank, target_modules }: RandomAdapter,
): Promise<string> {
  const file = join(folder, 'adapter_model.safetensors')
  if (existsSync(file)) return file
  const layout = loraLayout(weights, { rank, alpha: 2 * rank, target_modules: [...target_modules] })
  const flat = initialAdapter(layout, seed)
  for (const { kind, from, dims } of partsOf(layout))
    if (kind === 'lora_B')
      for (let at = from; at < from + dims[0] * dims[1]; at++)
        flat[at] = 0.002 * Math.sin(at * (seed + 1))
  const adapter = adapterFromFlat(layout, flat, 'base')
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, 'adapter_config.json'), writeAdapterConfig(adapter.config))
  await writeFile(file, writeAdapter(adapter))
  return file
}
