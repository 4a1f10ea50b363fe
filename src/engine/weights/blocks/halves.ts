// float16 and bfloat16 → float32.

/** The value of a float16's raw bits. */
export function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

let halves: Float32Array | undefined

/** Reads float16s at a byte offset: a table, for every block has one or two. */
export function halfReader(bytes: Uint8Array): (at: number) => number {
  halves ??= Float32Array.from({ length: 65536 }, (_, bits) => halfToFloat(bits))
  const table = halves
  return (at) => table[bytes[at]! | (bytes[at + 1]! << 8)]!
}

export function readHalves(bytes: Uint8Array, out: Float32Array): void {
  const half = halfReader(bytes)
  for (let i = 0; i < out.length; i++) out[i] = half(2 * i)
}

export function readBfloats(bytes: Uint8Array, out: Float32Array): void {
  // A bfloat16 is the upper half of a float32: written as bits, so that a NaN keeps its payload.
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length)
  for (let i = 0; i < bits.length; i++) bits[i] = (bytes[2 * i]! << 16) | (bytes[2 * i + 1]! << 24)
}
