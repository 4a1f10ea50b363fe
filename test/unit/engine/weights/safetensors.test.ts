import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  readSafetensorsFolder,
  readSafetensorsHeader,
  writeSafetensors,
} from '../../../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../../../src/engine/weights/stored-tensor.ts'
import { temporaryFolder } from '../../../support/temporary.ts'

const A = { name: 'a', dims: [2, 3], data: Float32Array.of(1, -2, 3.5, 0, -0, 1e-40) }
const B = { name: 'b', dims: [1], data: Float32Array.of(7) }

function fileOf(header: unknown, dataBytes: number): string {
  const json = typeof header === 'string' ? header : JSON.stringify(header)
  const bytes = new Uint8Array(8 + Buffer.byteLength(json) + dataBytes)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(Buffer.byteLength(json)), true)
  bytes.set(Buffer.from(json), 8)
  return written(bytes)
}

function written(bytes: Uint8Array): string {
  const file = join(temporaryFolder(), 'model.safetensors')
  writeFileSync(file, bytes)
  return file
}

const entry = (dtype: string, shape: unknown, data_offsets: unknown) => ({
  dtype,
  shape,
  data_offsets,
})

test('what is written is read back to the bit', async () => {
  const file = written(writeSafetensors([B, A], { format: 'pt', step: '3' }))
  const { tensors, metadata } = await readSafetensorsHeader(file)
  expect(metadata).toEqual({ format: 'pt', step: '3' })
  expect([...tensors.keys()].sort()).toEqual(['a', 'b'])
  expect(tensors.get('a')).toMatchObject({ dtype: 'F32', dims: [2, 3], bytes: 24 })
  expect(new Uint32Array((await readTensor(tensors.get('a')!)).buffer)).toEqual(
    new Uint32Array(A.data.slice().buffer),
  )
})

test('the bytes do not depend on the order of the tensors', () => {
  expect(writeSafetensors([A, B])).toEqual(writeSafetensors([B, A]))
})

test('a tensor is not written twice, nor with a shape it does not have', () => {
  expect(() => writeSafetensors([A, A])).toThrow('tensor a is given twice')
  expect(() => writeSafetensors([{ ...A, dims: [7] }])).toThrow(
    'tensor a: shape [7] does not hold 6 values',
  )
})

test('float16 and bfloat16 are widened', async () => {
  const bytes = Uint8Array.of(0, 0x3c, 1, 0x80, 0x80, 0x3f, 0, 0xc0) // 1, -2^-24; 1, -2
  const file = fileOf({ h: entry('F16', [2], [0, 4]), b: entry('BF16', [2], [4, 8]) }, 0)
  writeFileSync(file, bytes, { flag: 'a' })
  const { tensors } = await readSafetensorsHeader(file)
  expect([...(await readTensor(tensors.get('h')!))]).toEqual([1, -(2 ** -24)])
  expect([...(await readTensor(tensors.get('b')!))]).toEqual([1, -2])
})

test('an integer tensor is listed but not read as float32', async () => {
  const { tensors } = await readSafetensorsHeader(fileOf({ n: entry('I64', [1], [0, 8]) }, 8))
  await expect(readTensor(tensors.get('n')!)).rejects.toThrow(
    'model.safetensors: tensor n: I64 cannot be read as float32',
  )
})

test.each([
  ['an empty file', new Uint8Array(0), '0 bytes are too few'],
  ['a cut length', new Uint8Array(5), '5 bytes are too few'],
  [
    'a huge header length',
    new Uint8Array(64).fill(0xff, 0, 8),
    'the header claims 18446744073709552000 bytes',
  ],
  [
    'a header longer than the file',
    Uint8Array.of(200, 0, 0, 0, 0, 0, 0, 0, 0x7b),
    'the header claims 200 bytes, the file has 1 left',
  ],
])('%s is refused', async (_, bytes, message) => {
  await expect(readSafetensorsHeader(written(bytes))).rejects.toThrow(
    new RegExp(`^model.safetensors: ${message}`),
  )
})

test.each([
  ['a header that is not JSON', '{"a":', 'the header is not JSON'],
  ['a header that is a list', '[]', 'the header is not a JSON object'],
  ['an entry that is no object', { t: 3 }, 'tensor t: its entry is not an object'],
  ['an unknown dtype', { t: entry('F31', [1], [0, 4]) }, 'tensor t: unknown dtype "F31"'],
  [
    'a negative size',
    { t: entry('F32', [-1], [0, 4]) },
    'tensor t: shape [-1] is not a list of sizes',
  ],
  ['a size that is no integer', { t: entry('F32', [0.5], [0, 4]) }, 'tensor t: shape [0.5]'],
  ['one offset', { t: entry('F32', [1], [0]) }, 'tensor t: data_offsets [0] is not a pair'],
  [
    'offsets that run backwards',
    { t: entry('F32', [1], [8, 4]) },
    'tensor t: data_offsets [8, 4] run backwards',
  ],
  ['data past the end', { t: entry('F32', [4], [8, 24]) }, 'tensor t: its data ends at byte'],
  [
    'offsets beyond any file',
    { t: entry('F32', [1], [2 ** 52, 2 ** 52 + 4]) },
    'tensor t: its data ends at byte',
  ],
  [
    'a shape that takes more bytes',
    { t: entry('F32', [3], [0, 16]) },
    'tensor t: F32 [3] takes 12 bytes, its offsets span 16',
  ],
  [
    'a dtype that takes fewer bytes',
    { t: entry('F16', [4], [0, 16]) },
    'tensor t: F16 [4] takes 8 bytes',
  ],
  ['a product that overflows', { t: entry('F32', [2 ** 40, 2 ** 40], [0, 16]) }, 'tensor t: F32'],
  [
    'tensors that overlap',
    { t: entry('F32', [2], [0, 8]), u: entry('F32', [2], [4, 12]) },
    'tensors t and u overlap',
  ],
])('%s is refused by name', async (_, header, message) => {
  await expect(readSafetensorsHeader(fileOf(header, 16))).rejects.toThrow(
    `model.safetensors: ${message}`,
  )
})

test("a file cut in its last tensor is refused by that tensor's name", async () => {
  const bytes = writeSafetensors([A, B])
  await expect(readSafetensorsHeader(written(bytes.subarray(0, -1)))).rejects.toThrow(
    'model.safetensors: tensor b: its data ends at byte',
  )
})

test('every cut of a file is an error and never a crash', async () => {
  const bytes = writeSafetensors([A])
  for (let length = 0; length < bytes.length; length++)
    await expect(readSafetensorsHeader(written(bytes.subarray(0, length)))).rejects.toThrow(
      /^model\.safetensors: /,
    )
})

test('shards are read by their index', async () => {
  const folder = temporaryFolder()
  writeFileSync(join(folder, 'one.safetensors'), writeSafetensors([A]))
  writeFileSync(join(folder, 'two.safetensors'), writeSafetensors([B]))
  const index = join(folder, 'model.safetensors.index.json')
  const weight_map: Record<string, string> = { a: 'one.safetensors', b: 'two.safetensors' }
  writeFileSync(index, JSON.stringify({ weight_map }))
  const tensors = await readSafetensorsFolder(folder)
  expect([...tensors.keys()]).toEqual(['a', 'b'])
  expect(tensors.get('b')!.file).toBe(join(folder, 'two.safetensors'))

  writeFileSync(index, JSON.stringify({ weight_map: { ...weight_map, c: 'one.safetensors' } }))
  await expect(readSafetensorsFolder(folder)).rejects.toThrow(
    'one.safetensors: tensor c of the index',
  )
  writeFileSync(index, JSON.stringify({ weight_map: { a: 'three.safetensors' } }))
  await expect(readSafetensorsFolder(folder)).rejects.toThrow(
    'its shard three.safetensors is missing',
  )
  writeFileSync(index, JSON.stringify({ weight_map: { a: '../one.safetensors' } }))
  await expect(readSafetensorsFolder(folder)).rejects.toThrow('which is no file name')
})
