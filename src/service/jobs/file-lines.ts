// Lines of a stream of bytes, numbered as those of training files are: from 1, blank ones too. Copies, parses nothing.

const NEWLINE = 0x0a

/** What the bytes of a line come to, given in pieces: `number` stands for all of them. */
interface Piece {
  readonly number: number
  readonly bytes: Uint8Array
}

/** Cuts a chunk where lines end; a newline belongs to the line that it ends. */
function* cut(chunk: Uint8Array, from: number): Generator<Piece & { ends: boolean }> {
  let number = from
  for (let at = 0; at < chunk.length; ) {
    const end = chunk.indexOf(NEWLINE, at)
    const to = end < 0 ? chunk.length : end + 1
    yield { number, bytes: chunk.subarray(at, to), ends: end >= 0 }
    if (end >= 0) number++
    at = to
  }
}

/** The bytes without these lines. */
export async function* withoutLines(
  body: AsyncIterable<Uint8Array>,
  lines: ReadonlySet<number>,
): AsyncGenerator<Uint8Array, void, undefined> {
  let number = 1
  for await (const chunk of body) {
    const kept: Uint8Array[] = []
    for (const piece of cut(chunk, number)) {
      if (!lines.has(piece.number)) kept.push(piece.bytes)
      number = piece.number + (piece.ends ? 1 : 0)
    }
    if (kept.length > 0) yield Buffer.concat(kept)
  }
}

/** Those lines as text; what is not there is left out. Reads no further than the last of them. */
export async function pickLines(
  body: AsyncIterable<Uint8Array>,
  lines: ReadonlySet<number>,
): Promise<Map<number, string>> {
  const parts = new Map<number, Uint8Array[]>()
  const last = Math.max(...lines)
  let number = 1
  for await (const chunk of body) {
    for (const piece of cut(chunk, number)) {
      if (lines.has(piece.number))
        parts.set(piece.number, [...(parts.get(piece.number) ?? []), piece.bytes])
      number = piece.number + (piece.ends ? 1 : 0)
    }
    if (number > last) break
  }
  const decoder = new TextDecoder()
  return new Map([...parts].map(([line, own]) => [line, decoder.decode(Buffer.concat(own))]))
}
