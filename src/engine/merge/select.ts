// The k-th of many numbers without sorting them: two passes of counting over their bits.

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
  /** How many are below it. */
  readonly below: number
}

/** The value of rank `k` among |x|, or among x with `signed`. */
export function rankOf(values: Float32Array, k: number, signed = false): Ranked {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const keyOf = signed ? key : (b: number) => b & 0x7fffffff
  const high = new Uint32Array(65536)
  for (let i = 0; i < bits.length; i++) high[keyOf(bits[i]!) >>> 16]!++
  let below = 0
  let upper = 0
  while (below + high[upper]! <= k) below += high[upper++]!
  const low = new Uint32Array(65536)
  for (let i = 0; i < bits.length; i++) {
    const k = keyOf(bits[i]!)
    if (k >>> 16 === upper) low[k & 0xffff]!++
  }
  let lower = 0
  while (below + low[lower]! <= k) below += low[lower++]!
  const found = ((upper << 16) | lower) >>> 0
  const value = signed ? numberOfKey(found) : new Float32Array(Uint32Array.of(found).buffer)[0]!
  return { value, below }
}
