// N-grams of words and how many of them two texts share.

/** How often each run of `n` words occurs. Words hold no line feed; it joins them. */
export function ngrams(words: readonly string[], n: number): Map<string, number> {
  const counts = new Map<string, number>()
  for (let i = 0; i + n <= words.length; i++) {
    const gram = words.slice(i, i + n).join('\n')
    counts.set(gram, (counts.get(gram) ?? 0) + 1)
  }
  return counts
}

/** Of each n-gram as many as both have. */
export function shared(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): number {
  let sum = 0
  for (const [gram, count] of a) sum += Math.min(count, b.get(gram) ?? 0)
  return sum
}

/** How many n-grams a text of so many words has. */
export const total = (words: readonly string[], n: number): number =>
  Math.max(words.length - n + 1, 0)
