// One or two encoded texts made shorter, what the model puts around them kept. Pure.

interface Encoded {
  readonly ids: readonly number[]
  readonly types: readonly number[]
}

/**
 * Cuts `texts`, one or two that lie in the whole in this order, until at most `most` tokens are left: the longer one
 * first, as tokenizers' `longest_first` does. Throws where not even what lies around them fits.
 */
export function cutTexts(
  { ids, types }: Encoded,
  texts: readonly (readonly number[])[],
  most: number,
): Encoded {
  const around = texts.reduce((n, { length }) => n - length, ids.length)
  if (most < around) throw new Error(`${most} tokens hold no text`)
  const lengths = shorten(
    texts.map(({ length }) => length),
    most - around,
  )
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

/** How long one or two texts stay in so much room; of an odd rest the longer one has one more. */
function shorten([first = 0, second]: readonly number[], room: number): number[] {
  if (second === undefined) return [Math.min(first, room)]
  if (first + second <= room) return [first, second]
  const shorter = Math.min(first, second)
  const least = Math.min(shorter, Math.floor(room / 2))
  return first > second ? [room - least, least] : [least, room - least]
}

function find(ids: readonly number[], text: readonly number[], from: number): number {
  for (let at = from; at + text.length <= ids.length; at++)
    if (text.every((id, i) => ids[at + i] === id)) return at
  throw new Error('the tokens of a text are not among those of the whole')
}
