import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { readGguf } from '../../../../src/engine/weights/gguf.ts'
import { temporaryFolder } from '../../../support/temporary.ts'

const FIXTURE = new URL('../../../golden/fixtures/gguf-all-types.gguf', import.meta.url)
const fixture = () => new Uint8Array(readFileSync(FIXTURE))

function written(bytes: Uint8Array): string {
  const file = join(temporaryFolder(), 'm.gguf')
  writeFileSync(file, bytes)
  return file
}

/** A little GGUF by hand: parts are u32 as numbers, u64 as bigints, strings with their length. */
function gguf(...parts: (number | bigint | string)[]): Uint8Array {
  const chunks = parts.map((part) => {
    if (typeof part === 'string') {
      const text = Buffer.from(part)
      const length = Buffer.alloc(8)
      length.writeBigUInt64LE(BigInt(text.length))
      return Buffer.concat([length, text])
    }
    const bytes = Buffer.alloc(typeof part === 'number' ? 4 : 8)
    if (typeof part === 'number') bytes.writeUInt32LE(part)
    else bytes.writeBigUInt64LE(part)
    return bytes
  })
  return Buffer.concat([Buffer.from('GGUF'), ...chunks])
}

const F32 = 0
const padded = (bytes: Uint8Array, more: number) =>
  Buffer.concat([bytes, Buffer.alloc(((32 - (bytes.length % 32)) % 32) + more)])
const oneTensor = (dims: bigint[], type: number, offset: bigint, data: number) =>
  padded(gguf(3, 1n, 0n, 't', dims.length, ...dims, type, offset), data)

test('metadata, names and places are read', async () => {
  const { version, metadata, tensors } = await readGguf(written(fixture()))
  expect(version).toBe(3)
  expect(metadata.get('general.architecture')).toBe('llama')
  expect(metadata.get('llama.embedding_length')).toBe(32)
  expect(tensors.get('blk.5.ffn_down.weight')).toMatchObject({ dtype: 'Q4_1', dims: [32, 64] })
})

test.each([
  ['an empty file', new Uint8Array(0), 'the file ends inside the magic'],
  ['another magic', new TextEncoder().encode('GGML00000000'), 'not a GGUF file'],
  ['version 1', gguf(1, 0n, 0n), 'GGUF version 1 is not supported'],
  ['big-endian', gguf(0x03000000, 0n, 0n), 'GGUF version 50331648 is not supported'],
  ['a cut header', gguf(3, 1n), 'the file ends inside the metadata count'],
  ['too many keys', gguf(3, 0n, 10n ** 12n), '1000000000000 metadata entries do not fit'],
  ['too many tensors', gguf(3, 10n ** 9n, 0n), 'the header claims 1000000000 tensors'],
  ['a count past 2^53', gguf(3, 2n ** 63n, 0n), 'the tensor count claims'],
  ['a string that is too long', gguf(3, 0n, 1n, 'k', 8, 2n ** 40n), 'the file ends inside k'],
  ['a list that is too long', gguf(3, 0n, 1n, 'k', 9, 4, 2n ** 40n), '1099511627776 k do not fit'],
  ['an unknown value type', gguf(3, 0n, 1n, 'k', 99), 'k has unknown type 99'],
  [
    'lists in lists in lists',
    gguf(3, 0n, 1n, 'k', 9, 9, 1n, 9, 1n, 9, 1n, 9, 1n, 9, 1n, 4, 1n, 0),
    'k is nested too deeply',
  ],
  ['five dimensions', oneTensor([1n, 1n, 1n, 1n, 1n], F32, 0n, 4), 'tensor t claims 5 dimensions'],
  ['data past the end', oneTensor([9n], F32, 0n, 32), 'tensor t: its data ends at byte'],
  [
    'an offset past the end',
    oneTensor([1n], F32, 2n ** 40n, 32),
    'tensor t: its data ends at byte',
  ],
  [
    'an offset that is not aligned',
    oneTensor([1n], F32, 4n, 32),
    'tensor t: offset 4 is no multiple of 32',
  ],
  ['a shape that overflows', oneTensor([2n ** 40n, 2n ** 40n], F32, 0n, 32), 'tensor t: shape'],
  ['a type of few bits', oneTensor([256n], 10, 0n, 512), 'tensor t: type Q2_K is not supported'],
  ['a type nobody knows', oneTensor([1n], 77, 0n, 32), 'tensor t: type 77 is not supported'],
  [
    'rows of half a block',
    oneTensor([16n, 2n], 2, 0n, 32),
    'tensor t: rows of 16 values do not hold whole Q4_0 blocks',
  ],
])('%s is refused by name', async (_, bytes, message) => {
  await expect(readGguf(written(bytes))).rejects.toThrow(`m.gguf: ${message}`)
})

test('tensors that overlap are refused', async () => {
  const info = (name: string) => [name, 1, 8n, F32, 0n] as const
  const bytes = padded(gguf(3, 2n, 0n, ...info('t'), ...info('u')), 64)
  await expect(readGguf(written(bytes))).rejects.toThrow('m.gguf: tensors t and u overlap')
})

test('a file cut anywhere is an error with its name, never a crash', async () => {
  const whole = fixture()
  for (let length = 0; length < whole.length; length += 997)
    await expect(readGguf(written(whole.subarray(0, length)))).rejects.toThrow(/^m\.gguf: /)
})

test('bytes changed at random in the head are read or refused, never a crash', async () => {
  const whole = fixture()
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(4000), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      async (changes) => {
        const bytes = whole.slice()
        for (const [at, byte] of changes) bytes[at] = byte
        const file = written(bytes)
        await openCheckpoint(file).then(
          ({ config }) => expect(config.model_type).toBe('llama'),
          (error: Error) => expect(error.message).toMatch(/^m\.gguf|^m: /),
        )
      },
    ),
    { numRuns: 300 },
  )
})

test('a tensor that the model does not have, or another architecture, is refused', async () => {
  const bytes = fixture()
  const replace = (from: string, to: string) => {
    const copy = Buffer.from(bytes)
    copy.write(to, copy.indexOf(from))
    return written(copy)
  }
  await expect(
    openCheckpoint(replace('blk.3.ffn_up.weight', 'blk.7.ffn_up.weight')),
  ).rejects.toThrow('m.gguf: tensor blk.7.ffn_up.weight is not one that llama has here')
  await expect(
    openCheckpoint(replace('blk.3.ffn_up.weight', 'blk.3.ffn_xx.weight')),
  ).rejects.toThrow('m.gguf: tensor blk.3.ffn_xx.weight is not one that llama has here')
  await expect(openCheckpoint(replace('llama', 'mamba'))).rejects.toThrow(
    'm.gguf: architecture "mamba" is not supported, only llama',
  )
})
