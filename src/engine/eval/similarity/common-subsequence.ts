// The length of the longest common subsequence, 32 places at a time (Hyyrö, "Bit-parallel LCS-length computation
// revisited", 2004): a · b / 32 additions.

/** How many of the items stand in both in the same order. */
export function commonSubsequence(a: readonly string[], b: readonly string[]): number {
  const words = Math.ceil(a.length / 32)
  const places = new Map<string, Uint32Array>()
  for (const [i, item] of a.entries()) {
    const known = places.get(item) ?? new Uint32Array(words)
    places.set(item, known)
    known[i >>> 5]! |= 1 << (i & 31)
  }
  // A zero stands where the length grows by one.
  const row = new Uint32Array(words).fill(0xffffffff)
  for (const item of b) {
    const found = places.get(item)
    if (!found) continue
    let carry = 0
    for (let w = 0; w < words; w++) {
      const v = row[w]!
      const u = (v & found[w]!) >>> 0
      const sum = v + u + carry // below 2^33, exact
      carry = sum > 0xffffffff ? 1 : 0
      row[w] = (sum | (v - u)) >>> 0
    }
  }
  let length = 0
  for (let i = 0; i < a.length; i++) if (((row[i >>> 5]! >>> (i & 31)) & 1) === 0) length++
  return length
}
