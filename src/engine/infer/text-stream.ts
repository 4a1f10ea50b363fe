// Bytes of tokens → text in whole code points. Knows bytes only; no vocabulary, no stop texts.

export interface TextStream {
  /** The code points that are complete now. */
  push(bytes: Uint8Array): string
  /** The end: an unfinished code point becomes U+FFFD. */
  flush(): string
}

/**
 * Bytes that cannot become UTF-8 turn into U+FFFD as soon as that is certain, exactly as if all bytes
 * had been decoded at once.
 */
export function createTextStream(): TextStream {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  return {
    push: (bytes) => decoder.decode(bytes, { stream: true }),
    flush: () => decoder.decode(),
  }
}
