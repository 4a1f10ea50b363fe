// A decoder of which every weight was trained, as two files: its tensors, and the config.json of its base.
// They are kept where an adapter's files are kept; that the second says nothing of PEFT tells them apart.

import { readFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { type Checkpoint, readJson } from './checkpoint.ts'
import { parseModelConfig } from './model-config.ts'
import { type NamedTensor, readSafetensorsHeader, writeSafetensors } from './safetensors.ts'

/** model.safetensors and config.json under the names that tuned files have. */
export async function writeWholeModel(base: Checkpoint, tensors: Iterable<NamedTensor>) {
  const config = (await readJson(base.path, 'config.json')) as Record<string, unknown>
  const float32 = { dtype: 'float32', torch_dtype: 'float32' }
  return {
    adapter: writeSafetensors(tensors),
    adapter_config: `${JSON.stringify({ ...config, ...float32 }, null, 2)}\n`,
  }
}

/** The base with the tuned tensors instead of its own; undefined where the files are an adapter's. */
export async function openWholeModel(
  file: string,
  base: Checkpoint,
): Promise<Checkpoint | undefined> {
  const json: unknown = JSON.parse(
    await readFile(join(dirname(file), 'adapter_config.json'), 'utf8'),
  )
  if (typeof json !== 'object' || json === null || 'peft_type' in json) return undefined
  const { tensors } = await readSafetensorsHeader(file)
  const config = parseModelConfig(json, 'config.json')
  for (const [name, { dims }] of base.tensors)
    if (tensors.has(name) && String(tensors.get(name)?.dims) !== String(dims))
      throw new Error(`${basename(file)}: tensor ${name} has not the shape [${dims}] of its base`)
  return { ...base, config, tensors: new Map([...base.tensors, ...tensors]) }
}

/** Whether a base can be trained whole: its tensors must lie in files under the names that it computes with. */
export const isTrainedWhole = ({ format, config }: Checkpoint): boolean =>
  format === 'huggingface' && config.model_type !== 'gpt2'
