// The k-th of many numbers without sorting or keeping them: two looks at each, which count their bits.

/** The bits of a float32 as an integer that is ordered as the numbers are. */
const key = (bits: number) => (bits & 0x80000000 ? ~bits >>> 0 : (bits | 0x80000000) >>> 0)

/** Of a key, the number. */
function numberOfKey(key: number): number {
  const bits = key & 0x80000000 ? key & 0x7fffffff : ~key >>> 0
  return new Float32Array(Uint32Array.of(bits).buffer)[0]!
}

export interface Ranked {
  /** The value of this rank, from 0, in ascending order. */
  readonly value: number
  /** How many are below it, and how many equal it. */
  readonly below: number
  readonly equal: number
}

export interface Ranking {
  /** Shows the numbers, in any pieces; all of them in the first look (0), then all of them again in the second (1). */
  look(values: Float32Array, which: number): void
  /** Of each rank that was asked for. */
  found(): Ranked[]
}

/** Ranks among |x|, or among x with `signed`. They may be told between the looks. */
export function ranking(ranks: () => readonly number[], signed = false): Ranking {
  const high = new Uint32Array(65_536)
  let wanted: { rank: number; upper: number; below: number; low: Uint32Array }[] | undefined
  const settle = () => {
    const lows = new Map<number, Uint32Array>()
    return ranks().map((rank) => {
      let [upper, below] = [0, 0]
      while (below + high[upper]! <= rank) below += high[upper++]!
      const low = lows.get(upper) ?? new Uint32Array(65_536)
      lows.set(upper, low)
      return { rank, upper, below, low }
    })
  }
  return {
    look(values, which) {
      const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
      if (which === 0) return (signed ? countSigned : countPlain)(bits, high)
      wanted ??= settle()
      for (const { upper, low } of new Map(wanted.map((one) => [one.upper, one])).values())
        (signed ? countSignedBelow : countPlainBelow)(bits, upper, low)
    },
    found: () =>
      (wanted ?? settle()).map(({ rank, upper, below, low }) => {
        let lower = 0
        while (below + low[lower]! <= rank) below += low[lower++]!
        const key = ((upper << 16) | lower) >>> 0
        const value = signed ? numberOfKey(key) : new Float32Array(Uint32Array.of(key).buffer)[0]!
        return { value, below, equal: low[lower]! }
      }),
  }
}

// Four loops, for each is the inner one of a merge.

function countPlain(bits: Uint32Array, high: Uint32Array): void {
  for (let i = 0; i < bits.length; i++) {
    const at = (bits[i]! >>> 16) & 0x7fff
    high[at] = high[at]! + 1
  }
}

function countPlainBelow(bits: Uint32Array, upper: number, low: Uint32Array): void {
  for (let i = 0; i < bits.length; i++) {
    const one = bits[i]! | 0
    if (((one >>> 16) & 0x7fff) === upper) low[one & 0xffff] = low[one & 0xffff]! + 1
  }
}

function countSigned(bits: Uint32Array, high: Uint32Array): void {
  for (let i = 0; i < bits.length; i++) high[key(bits[i]!) >>> 16]!++
}

function countSignedBelow(bits: Uint32Array, upper: number, low: Uint32Array): void {
  for (let i = 0; i < bits.length; i++) {
    const k = key(bits[i]!)
    if (k >>> 16 === upper) low[k & 0xffff]!++
  }
}
