// Random numbers from a counter: the same (seed, choice, position) draws the same number in any batch.

/**
 * Philox 4x32-10: four counter words and two key words → four random words.
 * Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter
  let [k0, k1] = key
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, c0)
    const high1 = multiplyHigh(0xcd9e8d57, c2)
    const low0 = Math.imul(0xd2511f53, c0)
    const low1 = Math.imul(0xcd9e8d57, c2)
    c0 = high1 ^ c1 ^ k0
    c1 = low1
    c2 = high0 ^ c3 ^ k1
    c3 = low0
    k0 = (k0 + 0x9e3779b9) | 0
    k1 = (k1 + 0xbb67ae85) | 0
  }
  return [c0 >>> 0, c1 >>> 0, c2 >>> 0, c3 >>> 0]
}

/** A number in [0, 1) with 53 random bits, for one position of one choice. */
export function uniform(seed: number, choice: number, position: number): number {
  const [a, b] = philox([position, choice, 0, 0], keyOf(seed))
  return ((a >>> 5) * 2 ** 26 + (b >>> 6)) / 2 ** 53
}

/** A number of the standard normal distribution, for one position of one choice (Box–Muller). */
export function normal(seed: number, choice: number, position: number): number {
  const radius = Math.sqrt(-2 * Math.log(1 - uniform(seed, choice, 2 * position)))
  return radius * Math.cos(2 * Math.PI * uniform(seed, choice, 2 * position + 1))
}

/** So many words of 32 random bits. Streams whose second number is not 0 share nothing with `uniform`. */
export function randomWords(
  count: number,
  seed: number,
  [x, y, z]: readonly [number, number, number],
): Int32Array {
  const key = keyOf(seed)
  const words = new Int32Array(count)
  for (let i = 0; i < count; i += 4) {
    const four = philox([i >> 2, x, y, z], key)
    for (let k = 0; k < 4 && i + k < count; k++) words[i + k] = four[k]!
  }
  return words
}

const keyOf = (seed: number): readonly [number, number] => [
  (seed % 2 ** 32) | 0,
  (Math.floor(seed / 2 ** 32) % 2 ** 32) | 0,
]

/** The upper half of an unsigned 32 × 32 bit product. */
function multiplyHigh(a: number, b: number): number {
  const a0 = a & 0xffff
  const a1 = a >>> 16
  const b0 = b & 0xffff
  const b1 = b >>> 16
  const middle = a1 * b0 + ((a0 * b0) >>> 16)
  const carry = a0 * b1 + (middle % 2 ** 16)
  return (a1 * b1 + Math.floor(middle / 2 ** 16) + Math.floor(carry / 2 ** 16)) | 0
}
