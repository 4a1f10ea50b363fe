// Rows of banking77 for planted faults: texts with their intents.

import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Curation, curateFiles } from '../../../../src/engine/curate/curate-files.ts'
import { uniform } from '../../../../src/engine/random.ts'
import { shared } from '../../../support/shared.ts'

export const banking77 = shared('data/banking77/train.csv')

export interface Intent {
  text: string
  label: string
}

/** One row a line, but for the few whose text holds a line break. */
export function readIntents(): Intent[] {
  const found: Intent[] = []
  for (const line of readFileSync(banking77.path, 'utf8').split(/\r?\n/).slice(1)) {
    const match = /^(?:"((?:[^"]|"")*)"|([^",]*)),([A-Za-z_?]+)$/.exec(line)
    if (match)
      found.push({ text: (match[1] ?? match[2] ?? '').replaceAll('""', '"'), label: match[3]! })
  }
  return found
}

/** In another order for each seed. */
export function shuffled<T>(list: readonly T[], seed: number): T[] {
  const keyed = list.map((item, i) => ({ item, key: uniform(seed, 77, i) }))
  return keyed.sort((a, b) => a.key - b.key).map(({ item }) => item)
}

/** Curates rows as files. */
export async function curate(
  files: {
    training: readonly object[]
    validation?: readonly object[]
    reference?: readonly object[]
  },
  options: { groups?: string[]; validation_split?: number } = {},
): Promise<Curation> {
  const folder = await mkdtemp(join(tmpdir(), 'luthier-curate-'))
  try {
    const paths: Record<string, string> = {}
    for (const [name, rows] of Object.entries(files)) {
      paths[name] = join(folder, name)
      await writeFile(paths[name], `${rows.map((row) => JSON.stringify(row)).join('\n')}\n`)
    }
    return await curateFiles(
      {
        training: paths.training!,
        validation: paths.validation,
        reference: paths.reference,
        formats: ['classification'],
        groups: options.groups ?? [],
        validation_split: options.validation_split,
      },
      () => {},
    )
  } finally {
    await rm(folder, { recursive: true })
  }
}
