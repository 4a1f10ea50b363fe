// Prompt lookup (arXiv 2304.04487): what followed the last tokens before is likely to follow them again. Several tokens are
// then computed in one run, and those that the sampler draws by itself are kept. Pure: token ids and times.

/** Tokens that are guessed at once, at most. */
const MOST = 6
/** The last tokens that must have stood together before: the more, the surer. */
const LONGEST = 4
const SHORTEST = 2
/** How far back is looked. */
const REACH = 4096
/** A guess is made only where it should gain so much. */
const LEAST_GAIN = 1.05
/** Opportunities that are let go, where guesses do not pay, before one is taken again. */
const PATIENCE = 24
/** How much the newest time or guess counts. */
const NEW = 0.2

/** What stands behind the latest earlier place of the longest end of `tokens`, of `most` tokens at most; empty: no place. */
export function lookUp(tokens: readonly number[], most: number): number[] {
  const end = tokens.length
  const first = Math.max(0, end - REACH)
  for (let n = LONGEST; n >= SHORTEST; n--)
    for (let at = end - n - 1; at >= first; at--) {
      let same = 0
      while (same < n && tokens[at + same] === tokens[end - n + same]) same++
      if (same === n) return tokens.slice(at + n, at + n + most)
    }
  return []
}

/** What guesses have cost and gained for one sequence. */
export interface Guessing {
  /** How likely a guessed token is to be drawn; unknown at first, so hoped. */
  rate: number
  let_go: number
}

export const newGuessing = (): Guessing => ({ rate: 0.7, let_go: 0 })

/** Measures what runs of so many tokens take on each decoder, and says when a guess pays. */
export class Speculation {
  /** Milliseconds of a run by the number of its tokens. */
  readonly #took = new WeakMap<object, number[]>()
  readonly #usage = { drafted: 0, accepted: 0 }
  readonly #always: boolean

  /** `always`: whatever time has shown. */
  constructor({ always = false } = {}) {
    this.#always = always
  }

  /** Tokens that were guessed so far, and those that the sampler drew. */
  get usage(): { readonly drafted: number; readonly accepted: number } {
    return { ...this.#usage }
  }

  /** Guesses behind these tokens, `most` at most; empty where none is known or where none pays. */
  draft(decoder: object, guessing: Guessing, tokens: readonly number[], most: number): number[] {
    if (most <= 0) return []
    const found = lookUp(tokens, Math.min(most, MOST))
    if (found.length === 0 || this.#always) return found
    const best = bestLength(this.#timesOf(decoder), guessing.rate, found.length)
    if (best > 0) return found.slice(0, best)
    if (++guessing.let_go < PATIENCE) return []
    guessing.let_go = 0
    return found.slice(0, 2)
  }

  /** A run of so many tokens took so long. */
  ran(decoder: object, tokens: number, ms: number): void {
    const took = this.#timesOf(decoder)
    const before = took[tokens]
    // What others do to the machine makes runs longer, never shorter.
    took[tokens] = before === undefined ? ms : before + NEW * (Math.min(ms, 2 * before) - before)
  }

  /** Of so many guesses the sampler drew the first ones. */
  judged(guessing: Guessing, drafted: number, accepted: number): void {
    this.#usage.drafted += drafted
    this.#usage.accepted += accepted
    // The first that is wrong ends it: what comes behind says nothing.
    const tried = Math.min(drafted, accepted + 1)
    guessing.rate += (1 - (1 - NEW) ** tried) * (accepted / tried - guessing.rate)
  }

  #timesOf(decoder: object): number[] {
    const known = this.#took.get(decoder) ?? []
    this.#took.set(decoder, known)
    return known
  }
}

/** How many guesses gain most, by what their runs have taken so far; unknown ones are tried. */
function bestLength(took: readonly number[], rate: number, most: number): number {
  const one = took[1]
  let [best, gain] = [0, LEAST_GAIN]
  for (let count = 1, expected = 1; count <= most; count++) {
    expected += rate ** count
    const ms = took[1 + count] ?? near(took, 1 + count)
    const gained = one === undefined || ms === undefined ? expected : (expected * one) / ms
    if (gained > gain) [best, gain] = [count, gained]
  }
  return best
}

/** As the nearest smaller run of several that was measured, for more tokens. */
function near(took: readonly number[], tokens: number): number | undefined {
  for (let n = tokens - 1; n > 1; n--) if (took[n] !== undefined) return (took[n]! * tokens) / n
  return undefined
}
