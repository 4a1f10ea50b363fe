// The words of a text and where they lie: what labelled spans are told by. Knows no tokenizer.

export interface Word {
  /** Where the space before it begins. */
  readonly from: number
  readonly start: number
  readonly end: number
}

/** Runs of letters and digits; every other character that is no space is a word of its own. */
export function wordsOf(text: string): Word[] {
  let from = 0
  return [...text.matchAll(/[\p{L}\p{M}\p{N}]+|[^\s\p{L}\p{M}\p{N}]/gu)].map((match) => {
    const word = { from, start: match.index, end: match.index + match[0].length }
    from = word.end
    return word
  })
}

/** The outputs of a head for these kinds of spans: outside, and for each kind its first word and those that follow. */
export const bioLabels = (kinds: readonly string[]): string[] => [
  'O',
  ...kinds.flatMap((kind) => [`B-${kind}`, `I-${kind}`]),
]

/** `B-x` for the first word that touches a span, `I-x` for the next ones, `O` for all others. */
export function bioOfWords(
  words: readonly Word[],
  spans: readonly { start: number; end: number; label: string }[],
): string[] {
  const sorted = [...spans].sort((a, b) => a.start - b.start)
  const begun = new Set<number>()
  return words.map(({ start, end }) => {
    const at = sorted.findIndex((span) => span.start < end && start < span.end)
    if (at < 0) return 'O'
    const label = `${begun.has(at) ? 'I' : 'B'}-${sorted[at]!.label}`
    begun.add(at)
    return label
  })
}

/**
 * Spans of words from their labels: an `I-x` that does not go on with an x begins one. `from` and `to` count words,
 * `to` exclusive.
 */
export function spansOfBio(
  labels: readonly string[],
): { label: string; from: number; to: number }[] {
  const spans: { label: string; from: number; to: number }[] = []
  for (const [i, label] of labels.entries()) {
    if (label === 'O') continue
    const kind = label.slice(2)
    const last = spans.at(-1)
    if (label.startsWith('I-') && last?.to === i && last.label === kind) last.to = i + 1
    else spans.push({ label: kind, from: i, to: i + 1 })
  }
  return spans
}
