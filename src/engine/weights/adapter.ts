// A LoRA, rsLoRA or DoRA adapter in PEFT's layout: adapter_model.safetensors and adapter_config.json.
// Knows names and shapes; what a rank computes is the models' business.

import { readFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { type NamedTensor, readSafetensorsHeader, writeSafetensors } from './safetensors.ts'
import { readTensor } from './stored-tensor.ts'

/** What adapter_config.json says that changes what is computed. */
export interface AdapterConfig {
  readonly r: number
  readonly lora_alpha: number
  /** Projections by their Hugging Face name, `q_proj` … `down_proj`. */
  readonly target_modules: readonly string[]
  /** Of training alone. */
  readonly lora_dropout: number
  /** Scale by lora_alpha / √r instead of lora_alpha / r. */
  readonly use_rslora: boolean
  readonly use_dora: boolean
  readonly base_model_name_or_path: string
  /** Where the base keeps linear weights as [in, out]; the matrices of an adapter are the same either way. */
  readonly fan_in_fan_out?: boolean
  /** What the model is for, where it is not to go on with text: `SEQ_CLS`. */
  readonly task_type?: string
  /** Modules that were trained whole and lie beside the adapter's matrices: the head. */
  readonly modules_to_save?: readonly string[]
  /** Modules without an adapter, although a target names them. */
  readonly exclude_modules?: readonly string[]
}

/** The two matrices beside one projection, y += scale · B·(A·x), and the lengths of DoRA. */
export interface LoraPair {
  /** Rank and inputs: A is [r, in]. */
  readonly a: Float32Array
  /** Outputs and rank: B is [out, r]. */
  readonly b: Float32Array
  /** The length of each output's weights [out], with DoRA. */
  readonly magnitude?: Float32Array
  readonly in_features: number
  readonly out_features: number
}

export interface Adapter {
  readonly config: AdapterConfig
  /** By module: `model.layers.0.self_attn.q_proj`. */
  readonly pairs: ReadonlyMap<string, LoraPair>
  /** The tensors of `modules_to_save`, by their full names: `classifier.weight`. */
  readonly saved?: ReadonlyMap<string, SavedTensor>
  /** What the file says of itself besides its tensors. */
  readonly metadata?: Readonly<Record<string, string>>
}

export interface SavedTensor {
  readonly dims: readonly number[]
  readonly data: Float32Array
}

const PREFIX = 'base_model.model.'

/** The bytes of adapter_model.safetensors; the same adapter gives the same bytes. */
export function writeAdapter({ config, pairs, saved, metadata }: Adapter): Uint8Array {
  const tensors: NamedTensor[] = []
  for (const [module, { a, b, magnitude, in_features, out_features }] of pairs) {
    tensors.push(
      { name: `${PREFIX}${module}.lora_A.weight`, dims: [config.r, in_features], data: a },
      { name: `${PREFIX}${module}.lora_B.weight`, dims: [out_features, config.r], data: b },
    )
    if (magnitude)
      tensors.push({
        name: `${PREFIX}${module}.lora_magnitude_vector`,
        dims: [out_features],
        data: magnitude,
      })
  }
  for (const [name, { dims, data }] of saved ?? [])
    tensors.push({ name: `${PREFIX}${name}`, dims, data })
  return writeSafetensors(tensors, { format: 'pt', ...metadata })
}

/** The text of adapter_config.json as peft writes it, with every field that it reads. */
export function writeAdapterConfig(config: AdapterConfig): string {
  const json = {
    base_model_name_or_path: config.base_model_name_or_path,
    bias: 'none',
    exclude_modules: config.exclude_modules ?? null,
    fan_in_fan_out: config.fan_in_fan_out ?? false,
    inference_mode: true,
    init_lora_weights: true,
    layers_pattern: null,
    layers_to_transform: null,
    lora_alpha: config.lora_alpha,
    lora_dropout: config.lora_dropout,
    modules_to_save: config.modules_to_save ?? null,
    peft_type: 'LORA',
    r: config.r,
    revision: null,
    target_modules: [...config.target_modules],
    task_type: config.task_type ?? 'CAUSAL_LM',
    use_dora: config.use_dora,
    use_rslora: config.use_rslora,
  }
  return `${JSON.stringify(json, null, 2)}\n`
}

/** Reads `adapter_model.safetensors` and the `adapter_config.json` beside it. */
export async function readAdapter(file: string): Promise<Adapter> {
  const configFile = join(dirname(file), 'adapter_config.json')
  const config = parseAdapterConfig(await readFile(configFile, 'utf8'))
  const { tensors, metadata } = await readSafetensorsHeader(file)
  const pairs = new Map<string, LoraPair>()
  const saved = new Map<string, SavedTensor>()
  const refuse = (name: string, why: string) =>
    new Error(`${basename(file)}: tensor ${name} ${why}`)
  for (const [name, tensor] of tensors) {
    const match = /^base_model\.model\.(.+)\.lora_([AB]\.weight|magnitude_vector)$/.exec(name)
    if (!match && name.startsWith(PREFIX) && isSaved(name, config)) {
      const { dims } = tensor
      saved.set(name.slice(PREFIX.length), { dims, data: await readTensor(tensor) })
      continue
    }
    if (!match || (match[2] === 'magnitude_vector' && !config.use_dora))
      throw refuse(name, 'is not a LoRA matrix')
    const module = `${PREFIX}${match[1]!}`
    if (match[2] !== 'A.weight') {
      if (!tensors.has(`${module}.lora_A.weight`)) throw refuse(name, 'has no lora_A beside it')
      continue
    }
    const other = tensors.get(`${module}.lora_B.weight`)
    if (!other) throw refuse(name, 'has no lora_B beside it')
    const [rA, in_features = 0] = tensor.dims
    const [out_features = 0, rB] = other.dims
    for (const [{ name, dims }, rank] of [[tensor, rA] as const, [other, rB] as const])
      if (dims.length !== 2 || rank !== config.r)
        throw refuse(name, `has shape [${dims}], expected rank ${config.r}`)
    const magnitude = config.use_dora ? tensors.get(`${module}.lora_magnitude_vector`) : undefined
    if (config.use_dora && !magnitude) throw refuse(name, 'has no lora_magnitude_vector beside it')
    if (magnitude && String(magnitude.dims) !== String([out_features]))
      throw refuse(magnitude.name, `has shape [${magnitude.dims}], expected [${out_features}]`)
    pairs.set(match[1]!, {
      a: await readTensor(tensor),
      b: await readTensor(other),
      ...(magnitude && { magnitude: await readTensor(magnitude) }),
      in_features,
      out_features,
    })
  }
  return { config, pairs, saved, metadata }
}

/** PEFT takes every module whose name ends so: `classifier` is also `pre_classifier`. */
const isSaved = (tensor: string, { modules_to_save = [] }: AdapterConfig): boolean =>
  tensor.split('.').some((part) => modules_to_save.some((module) => part.endsWith(module)))

/** A list of names where the field is one; PEFT writes null for none. */
const namesOf = (raw: Readonly<Record<string, unknown>>, key: string) =>
  Array.isArray(raw[key]) ? { [key]: (raw[key] as unknown[]).map(String) } : {}

/** Checks adapter_config.json; what would compute otherwise than we do is refused by name. */
export function parseAdapterConfig(text: string): AdapterConfig {
  const where = 'adapter_config.json'
  let raw: Record<string, unknown>
  try {
    raw = JSON.parse(text)
  } catch (cause) {
    throw new Error(`${where}: not JSON`, { cause })
  }
  if (raw?.peft_type !== 'LORA')
    throw new Error(`${where}: peft_type ${JSON.stringify(raw?.peft_type)} is not supported`)
  if (raw.lora_bias === true) throw new Error(`${where}: lora_bias is not supported`)
  for (const key of ['rank_pattern', 'alpha_pattern'])
    if (Object.keys((raw[key] as object | null | undefined) ?? {}).length > 0)
      throw new Error(`${where}: ${key} is not supported`)
  if ((raw.bias ?? 'none') !== 'none')
    throw new Error(`${where}: bias ${raw.bias} is not supported`)
  const { r, lora_alpha, target_modules, base_model_name_or_path } = raw
  if (typeof r !== 'number' || !Number.isSafeInteger(r) || r < 1)
    throw new Error(`${where}: r is ${JSON.stringify(r)}, expected a positive integer`)
  if (typeof lora_alpha !== 'number' || !(lora_alpha > 0))
    throw new Error(`${where}: lora_alpha is ${JSON.stringify(lora_alpha)}, expected a number`)
  if (!Array.isArray(target_modules) || target_modules.some((name) => typeof name !== 'string'))
    throw new Error(`${where}: target_modules is not a list of names`)
  return {
    r,
    lora_alpha,
    target_modules,
    lora_dropout: typeof raw.lora_dropout === 'number' ? raw.lora_dropout : 0,
    use_rslora: raw.use_rslora === true,
    use_dora: raw.use_dora === true,
    base_model_name_or_path:
      typeof base_model_name_or_path === 'string' ? base_model_name_or_path : '',
    ...(raw.fan_in_fan_out === true && { fan_in_fan_out: true }),
    ...(typeof raw.task_type === 'string' && { task_type: raw.task_type }),
    ...namesOf(raw, 'modules_to_save'),
    ...namesOf(raw, 'exclude_modules'),
  }
}
