// Examples for a prompt, out of a training file: few, and of as many different outputs as there is room for.

import { readLines } from '../datasets/jsonl.ts'
import { uniform } from '../random.ts'
import type { PromptMessage } from './prompt.ts'

/** What is asked and what is answered, as messages. */
export interface PromptExample {
  messages: PromptMessage[]
  output: string
}

/** Rows of a file that are looked at: those that come first. */
const MOST_ROWS = 20_000

/**
 * Up to `limit` examples, the same for the same seed. They go round the outputs, the most frequent first, so that each
 * prefix has as many different ones as it can.
 */
export async function chooseExamples(
  path: string,
  { limit, seed }: { limit: number; seed: number },
): Promise<PromptExample[]> {
  const byOutput = new Map<string, PromptExample[]>()
  let rows = 0
  for await (const line of readLines(path)) {
    if (++rows > MOST_ROWS) break
    const example = 'text' in line ? readExample(line.text) : undefined
    if (!example) continue
    const known = byOutput.get(example.output)
    if (known) known.push(example)
    else byOutput.set(example.output, [example])
  }
  const groups = [...byOutput.values()]
    .map((group, at) => shuffled(group, (i) => uniform(seed, at, i)))
    .sort((a, b) => b.length - a.length)
  const chosen: PromptExample[] = []
  for (let round = 0; chosen.length < limit; round++) {
    const left = groups.flatMap((group) => group[round] ?? [])
    if (left.length === 0) break
    chosen.push(...left.slice(0, limit - chosen.length))
  }
  return chosen
}

/** A row for training as an example: messages, prompt and completion, or text and label; undefined for others. */
export function readExample(text: string): PromptExample | undefined {
  let row: Record<string, unknown>
  try {
    row = JSON.parse(text) as Record<string, unknown>
  } catch {
    return undefined
  }
  const pair = (input: unknown, output: unknown): PromptExample | undefined =>
    typeof input === 'string' && typeof output === 'string'
      ? {
          messages: [
            { role: 'user', content: input.trim() },
            { role: 'assistant', content: output.trim() },
          ],
          output: output.trim(),
        }
      : undefined
  if (typeof row !== 'object' || row === null) return undefined
  if (!Array.isArray(row.messages))
    return pair(row.prompt, row.completion) ?? pair(row.text, row.label)
  // What a system message says stands in the prompt already.
  const messages = (row.messages as PromptMessage[])
    .filter(({ role }) => role === 'user' || role === 'assistant')
    .map(({ role, content }) => ({ role, content }))
  const last = messages.at(-1)
  if (last?.role !== 'assistant' || messages.some(({ content }) => typeof content !== 'string'))
    return undefined
  return { messages, output: last.content }
}

function shuffled<T>(items: readonly T[], draw: (place: number) => number): T[] {
  const mixed = [...items]
  for (let i = mixed.length - 1; i > 0; i--) {
    const j = Math.floor(draw(i) * (i + 1))
    ;[mixed[i], mixed[j]] = [mixed[j]!, mixed[i]!]
  }
  return mixed
}
