// Bytes of tokens → text in whole code points. Knows bytes only; no vocabulary, no stop texts.

export interface TextStream {
  /** The code points that are complete now. */
  push(bytes: Uint8Array): string
  /** Whether bytes wait for the rest of their code point. */
  half(): boolean
  /** The end: an unfinished code point becomes U+FFFD. */
  flush(): string
}

/**
 * Bytes that cannot become UTF-8 turn into U+FFFD as soon as that is certain, exactly as if all bytes
 * had been decoded at once.
 */
export function createTextStream(): TextStream {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  let tail = new Uint8Array(0)
  return {
    push(bytes) {
      tail = Uint8Array.from([...tail, ...bytes.subarray(-LONGEST)]).slice(-LONGEST)
      return decoder.decode(bytes, { stream: true })
    },
    half: () => endsInside(tail),
    flush: () => decoder.decode(),
  }
}

/** Bytes that a code point can have before its last one. */
const LONGEST = 3

/** Whether the last code point that begins here lacks bytes. */
function endsInside(bytes: Uint8Array): boolean {
  for (let back = 1; back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back]!
    if ((byte & 0xc0) === 0x80) continue // goes on a code point that began before
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1
    return length > back
  }
  return false
}
