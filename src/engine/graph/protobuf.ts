// Writing protobuf's wire format (https://protobuf.dev/programming-guides/encoding/): the part that ONNX needs.

const text = new TextEncoder()

/** A message under construction; each method appends one field and returns the message. */
export class Message {
  readonly #chunks: Uint8Array[] = []
  #length = 0

  /** A varint field; negative numbers take ten bytes, as int64 wants. */
  int(field: number, x: number): this {
    this.#varint(BigInt(field << 3))
    return this.#varint(BigInt.asUintN(64, BigInt(x)))
  }

  float(field: number, x: number): this {
    const bytes = new Uint8Array(4)
    new DataView(bytes.buffer).setFloat32(0, x, true)
    this.#varint(BigInt((field << 3) | 5))
    return this.#push(bytes)
  }

  string(field: number, s: string): this {
    return this.raw(field, text.encode(s))
  }

  raw(field: number, bytes: Uint8Array): this {
    this.#varint(BigInt((field << 3) | 2))
    this.#varint(BigInt(bytes.length))
    return this.#push(bytes)
  }

  message(field: number, message: Message): this {
    this.#varint(BigInt((field << 3) | 2))
    this.#varint(BigInt(message.#length))
    for (const chunk of message.#chunks) this.#push(chunk)
    return this
  }

  bytes(): Uint8Array {
    const all = new Uint8Array(this.#length)
    let at = 0
    for (const chunk of this.#chunks) {
      all.set(chunk, at)
      at += chunk.length
    }
    return all
  }

  #varint(x: bigint): this {
    const bytes: number[] = []
    let rest = x
    while (rest > 127n) {
      bytes.push(Number(rest & 127n) | 128)
      rest >>= 7n
    }
    bytes.push(Number(rest))
    return this.#push(Uint8Array.from(bytes))
  }

  #push(chunk: Uint8Array): this {
    this.#chunks.push(chunk)
    this.#length += chunk.length
    return this
  }
}
