// What encoders have in common on disk: which fields say what a checkpoint of one was trained for.

import type { EncoderConfig } from './family.ts'
import type { Fields } from './fields.ts'

/** Labels and task of a checkpoint that has a head; most have none. */
export function headOf({ raw }: Fields): Pick<EncoderConfig, 'head'> {
  const [architecture] = Array.isArray(raw.architectures) ? raw.architectures : []
  const task = /For(Sequence|Token)Classification$/.exec(String(architecture))?.[1]
  const labels = labelsOf(raw.id2label)
  if (!task || !labels) return {}
  if (task === 'Token') return { head: { task: 'tokens', labels } }
  const several = raw.problem_type === 'multi_label_classification'
  return { head: { task: several ? 'several' : 'single', labels } }
}

function labelsOf(id2label: unknown): string[] | undefined {
  if (typeof id2label !== 'object' || id2label === null) return undefined
  const labels = Object.entries(id2label)
    .sort(([a], [b]) => Number(a) - Number(b))
    .map(([, label]) => String(label))
  return labels.length > 0 ? labels : undefined
}

/** `gamma` and `beta` are what the first checkpoints call a norm's weight and bias. */
export const modernName = (name: string): string =>
  name
    .replace(/LayerNorm\.gamma$/, 'LayerNorm.weight')
    .replace(/LayerNorm\.beta$/, 'LayerNorm.bias')
