// What random methods draw: the same for the same place, whatever the order of work.

import { randomWords } from '../random.ts'

/** Numbers of (seed, tensor's name, input, position). */
export function drawing(seed: number, name: string) {
  let hash = 0x811c9dc5
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193)
  const BLOCK = 65_536
  // Rows are shorter than blocks: the last one is kept.
  let kept = { input: -1, block: -1, words: new Int32Array(0) as ArrayLike<number> }
  return (input: number, at: number, out: Float64Array) => {
    for (let done = 0; done < out.length; ) {
      const block = Math.floor((at + done) / BLOCK)
      const from = (at + done) % BLOCK
      if (kept.input !== input || kept.block !== block)
        kept = { input, block, words: randomWords(BLOCK, seed, [hash, input, block + 1]) }
      for (let i = from; i < BLOCK && done < out.length; i++)
        out[done++] = (kept.words[i]! >>> 0) / 2 ** 32
    }
  }
}
