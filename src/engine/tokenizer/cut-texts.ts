// One or two encoded texts made shorter, what the model puts around them kept. Pure.

interface Encoded {
  readonly ids: readonly number[]
  readonly types: readonly number[]
}

/**
 * Cuts `texts`, which lie in `whole` in this order, until at most `most` tokens are left: always the last token of the
 * longer one, as transformers' `longest_first` does. Throws where not even what lies around them fits.
 */
export function cutTexts(
  { ids, types }: Encoded,
  texts: readonly (readonly number[])[],
  most: number,
): Encoded {
  const lengths = texts.map(({ length }) => length)
  let over = ids.length - most
  for (; over > 0; over--) {
    const longest = lengths.indexOf(Math.max(...lengths))
    if (!lengths[longest]) throw new Error(`${most} tokens hold no text`)
    lengths[longest]!--
  }
  const kept = { ids: [] as number[], types: [] as number[] }
  const keep = (from: number, to: number) => {
    kept.ids.push(...ids.slice(from, to))
    kept.types.push(...types.slice(from, to))
  }
  let at = 0
  for (const [i, text] of texts.entries()) {
    const start = find(ids, text, at)
    keep(at, start + lengths[i]!)
    at = start + text.length
  }
  keep(at, ids.length)
  return kept
}

function find(ids: readonly number[], text: readonly number[], from: number): number {
  for (let at = from; at + text.length <= ids.length; at++)
    if (text.every((id, i) => ids[at + i] === id)) return at
  throw new Error('the tokens of a text are not among those of the whole')
}
