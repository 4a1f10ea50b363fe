// Rows of banking77 for benchmarks: questions with their intents, dealt out by a seed.

import { readFile, writeFile } from 'node:fs/promises'
import { uniform } from '../src/engine/random.ts'

export interface Question {
  readonly text: string
  readonly label: string
}

/** All rows of `train.csv`. */
export async function readQuestions(csv: string): Promise<Question[]> {
  return (await readFile(csv, 'utf8'))
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const match = /^(?:"((?:[^"]|"")*)"|([^",]*)),(.+)$/.exec(line.trim())
      if (!match) return []
      return [{ text: (match[1] ?? match[2]!).replaceAll('""', '"'), label: match[3]! }]
    })
}

/** So many intents, drawn by the seed. */
export const drawIntents = (questions: readonly Question[], count: number, seed: number) =>
  shuffled([...new Set(questions.map(({ label }) => label))], seed, 1).slice(0, count)

/** Fisher–Yates by a counter: the same for one seed and choice. */
export function shuffled<T>(items: readonly T[], seed: number, choice: number): T[] {
  const all = [...items]
  for (let i = all.length - 1; i > 0; i--) {
    const j = Math.floor(uniform(seed, choice, i) * (i + 1))
    const other = all[j]!
    all[j] = all[i]!
    all[i] = other
  }
  return all
}

/** Rows for the method: an encoder's label, or a decoder's completion. */
export async function writeRows(
  path: string,
  questions: readonly Question[],
  method: 'classification' | 'supervised',
): Promise<void> {
  const rows = questions.map(({ text, label }) =>
    JSON.stringify(
      method === 'classification'
        ? { text, label }
        : { prompt: `Question: ${text}\nIntent:`, completion: ` ${label.replaceAll('_', ' ')}` },
    ),
  )
  await writeFile(path, rows.join('\n'))
}

/** Deals the questions of some intents into parts of so many rows of each intent. */
export function deal(
  questions: readonly Question[],
  intents: readonly string[],
  seed: number,
  ...counts: number[]
): Question[][] {
  const parts: Question[][] = counts.map(() => [])
  for (const [i, intent] of intents.entries()) {
    const own = shuffled(
      questions.filter(({ label }) => label === intent),
      seed,
      i + 2,
    )
    let from = 0
    for (const [p, count] of counts.entries()) {
      parts[p]!.push(...own.slice(from, from + count))
      from += count
    }
  }
  return parts.map((part, p) => shuffled(part, seed, 1000 + p))
}
