// Quantised blocks, held against Python's `gguf` and llama.cpp's own (gguf_quantise.py).

import { expect, test } from 'vitest'
import { quantise, type WrittenDtype } from '../../src/engine/weights/quantise.ts'
import golden from './fixtures/gguf-quantise.json' with { type: 'json' }

const bytes = (base64: string) => new Uint8Array(Buffer.from(base64, 'base64'))
const values = new Float32Array(bytes(golden.values).buffer)

test.each(['F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q4_K', 'Q5_K'] as const)(
  '%s: byte for byte as gguf, or as llama.cpp',
  (dtype) => {
    expect(Buffer.from(quantise(dtype, values)).equals(bytes(golden[dtype]))).toBe(true)
  },
)

test('values that fill no block are refused', () => {
  expect(() => quantise('Q8_0' satisfies WrittenDtype, new Float32Array(33))).toThrow('fill no')
})
