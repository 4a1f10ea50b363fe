// How an encoder makes one vector of a text, as sentence-transformers writes it beside the weights.

import { basename } from 'node:path'
import { invalidRequest } from '../../errors.ts'
import { readJson } from './checkpoint.ts'

export interface Pooling {
  /** The mean over all tokens, or the first one's hidden state. */
  readonly by: 'mean' | 'first'
  /** Of length 1. */
  readonly normalized: boolean
}

/** What models are tuned with, and what those have that say nothing. */
export const MEAN_POOLING: Pooling = { by: 'mean', normalized: true }

const MODES: Readonly<Record<string, Pooling['by']>> = {
  pooling_mode_mean_tokens: 'mean',
  pooling_mode_cls_token: 'first',
}

/** Reads modules.json and what it leads to; throws where a vector is made in another way than we know. */
export async function readPooling(folder: string): Promise<Pooling> {
  const modules = await readJson(folder, 'modules.json')
  if (!Array.isArray(modules)) return MEAN_POOLING
  const kinds = modules.map(({ type }) => String(type).split('.').at(-1))
  const unknown = kinds.find((kind) => !['Transformer', 'Pooling', 'Normalize'].includes(`${kind}`))
  if (unknown) throw unsupported(folder, `has a module ${unknown}`)
  const at = modules[kinds.indexOf('Pooling')]?.path
  const config = (at === undefined ? undefined : await readJson(folder, `${at}/config.json`)) ?? {}
  const modes = Object.entries(config).flatMap(([name, on]) =>
    name.startsWith('pooling_mode_') && on === true ? [name] : [],
  )
  const [mode = 'pooling_mode_mean_tokens', more] = modes
  const by = MODES[mode]
  if (!by || more) throw unsupported(folder, `pools by ${modes.join(' and ')}`)
  return { by, normalized: kinds.includes('Normalize') }
}

const unsupported = (folder: string, what: string) =>
  invalidRequest(
    `The model ${basename(folder)} ${what}; this server pools by the mean or the first token, with or without normalisation.`,
    { param: 'model', code: 'unsupported_model' },
  )
