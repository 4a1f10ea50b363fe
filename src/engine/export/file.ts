// A file that is being made: how long it will be is known before its first byte.

export interface ExportFile {
  /** Below the exported folder, with `/`. */
  readonly path: string
  readonly bytes: number
  /** All bytes in order; made while they are asked for. */
  chunks(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>
}

/** A file that is in memory. */
export const textFile = (path: string, text: string): ExportFile => {
  const bytes = new TextEncoder().encode(text)
  return { path, bytes: bytes.length, chunks: () => [bytes] }
}

/** JSON as people read it. */
export const jsonFile = (path: string, value: unknown): ExportFile =>
  textFile(path, `${JSON.stringify(value, null, 2)}\n`)
