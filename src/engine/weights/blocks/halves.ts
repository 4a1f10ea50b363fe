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
  const bits = new Int32Array(out.buffer, out.byteOffset, out.length)
  if (bytes.byteOffset % 2 === 0) {
    const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bits.length)
    for (let i = 0; i < bits.length; i++) bits[i] = halves[i]! << 16
  } else
    for (let i = 0; i < bits.length; i++)
      bits[i] = (bytes[2 * i]! << 16) | (bytes[2 * i + 1]! << 24)
}

const bitsOf = new Uint32Array(1)
const floatOf = new Float32Array(bitsOf.buffer)

/** The raw bits of the float16 that is nearest to a float32, ties to even. */
export function floatToHalf(value: number): number {
  floatOf[0] = value
  const bits = bitsOf[0]!
  const sign = (bits >>> 16) & 0x8000
  const rest = bits & 0x7fffffff
  if (rest > 0x7f800000) return sign | 0x7e00
  if (rest >= 0x477ff000) return sign | 0x7c00 // 65520 and more
  if (rest < 0x38800000) {
    // Below 2⁻¹⁴: counted in steps of 2⁻²⁴, which a double holds exactly.
    const steps = Math.abs(floatOf[0]!) * 2 ** 24
    const whole = Math.floor(steps)
    const over = steps - whole
    return sign | (whole + (over > 0.5 || (over === 0.5 && whole % 2 === 1) ? 1 : 0))
  }
  return sign | ((rest - 0x38000000 + 0xfff + ((rest >>> 13) & 1)) >>> 13)
}

export function writeHalves(values: Float32Array, out: Uint8Array): void {
  for (let i = 0; i < values.length; i++) {
    const half = floatToHalf(values[i]!)
    out[2 * i] = half & 255
    out[2 * i + 1] = half >> 8
  }
}

export function writeBfloats(values: Float32Array, out: Uint8Array): void {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  for (let i = 0; i < bits.length; i++) {
    const n = bits[i]!
    const isNone = (n & 0x7fffffff) > 0x7f800000
    const top = isNone ? (n >>> 16) | 64 : (n + 0x7fff + ((n >>> 16) & 1)) >>> 16
    out[2 * i] = top & 255
    out[2 * i + 1] = (top >>> 8) & 255
  }
}
