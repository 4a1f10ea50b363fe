// What a trial of a base's precisions came to, kept beside its converted weights: the next job on it need not try again.

import { createHash, randomUUID } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describeProcessor } from '../runtime/processor.ts'
import { RUNTIME_VERSION } from '../runtime/session.ts'
import type { Checkpoint } from '../weights/checkpoint.ts'
import { weightsId } from '../weights/mapped.ts'
import type { Choice, Tried } from './precision.ts'
import type { Plan } from './request.ts'

/** Counts up whenever a step's graph becomes faster or slower in one precision alone. */
const VERSION = 1

export interface Triable {
  readonly checkpoint: Checkpoint
  /** Folder of converted weights. */
  readonly cache: string
  readonly method: string
  readonly plan: Plan
  /** Where an adapter goes on: its gradient is another than the base's, so nothing is kept. */
  readonly initial?: string | undefined
}

/**
 * The choice that an earlier trial of this base came to on such a processor, and says so; or that of `trial`, which is
 * kept where it was clear. On other devices, which no file tells apart, it is always tried.
 */
export async function settledPrecision(of: Triable, trial: () => Promise<Tried>): Promise<Tried> {
  const { plan, initial } = of
  if ((plan.device ?? 'cpu') !== 'cpu' || initial !== undefined) return trial()
  const file = await fileOf(of)
  const kept = await readKept(file)
  if (kept) {
    const { precision, reason, tried_at } = kept
    const choice = { precision, reason: `${reason}; kept from a trial of this base at ${tried_at}` }
    return { choice, isClear: true, trainer: undefined }
  }
  const tried = await trial()
  if (tried.isClear) await keep(of.cache, file, tried.choice)
  return tried
}

type Kept = Choice & { readonly tried_at: string }

async function readKept(file: string): Promise<Kept | undefined> {
  try {
    const kept = JSON.parse(await readFile(file, 'utf8')) as Kept
    const isPrecision = kept.precision === 'fp32' || kept.precision === 'int8'
    return isPrecision && kept.reason && kept.tried_at ? kept : undefined
  } catch {
    return undefined // None, or one that was cut off: it is tried again.
  }
}

async function keep(cache: string, file: string, choice: Choice): Promise<void> {
  await mkdir(cache, { recursive: true })
  const aside = `${file}.${randomUUID()}.tmp`
  await writeFile(aside, JSON.stringify({ ...choice, tried_at: new Date().toISOString() }))
  await rename(aside, file)
}

async function fileOf({ checkpoint, cache, method, plan }: Triable): Promise<string> {
  const of = [VERSION, RUNTIME_VERSION, plan.threads, await describeProcessor()].join('\n')
  const place = createHash('sha256').update(of).digest('hex').slice(0, 12)
  return join(cache, `${await weightsId(checkpoint)}.${method}.${place}.precision.json`)
}
