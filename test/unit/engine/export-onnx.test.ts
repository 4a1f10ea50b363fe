// ONNX exports in a plain onnxruntime, from the file as anybody would open it: the logits must be ours.

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { exportFiles } from '../../../src/engine/export/export.ts'
import type { ExportDtype } from '../../../src/engine/export/request.ts'
import { Decoder } from '../../../src/engine/infer/decoder.ts'
import { Encoders } from '../../../src/engine/infer/encoders.ts'
import { openCheckpoint } from '../../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../../src/engine/weights/mapped.ts'
import { relativeError } from '../../support/fixtures.ts'
import { writeTinyEncoder } from '../../support/tiny-encoder.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'luthier-onnx-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

async function exported(base: string, dtype: ExportDtype = 'f32'): Promise<string> {
  const out = await mkdtemp(join(folder, 'out-'))
  const wanted = { source: { base }, name: 'm', format: 'onnx' as const, dtype, shard_bytes: 1e9 }
  for (const { path, bytes, chunks } of await exportFiles(wanted)) {
    const parts: Uint8Array[] = []
    for await (const part of chunks()) parts.push(part.slice())
    expect(Buffer.concat(parts).length, path).toBe(bytes)
    await writeFile(join(out, path), Buffer.concat(parts))
  }
  return out
}

const ids = (rows: readonly (readonly number[])[]) =>
  new Tensor('int64', BigInt64Array.from(rows.flat().map(BigInt)), [rows.length, rows[0]!.length])

async function ours(base: string, tokens: readonly number[]): Promise<Float32Array> {
  const mapped = await mapWeights(await openCheckpoint(base), folder)
  await using decoder = new Decoder({ mapped }, 1)
  await decoder.open()
  const cache = decoder.newCache()
  cache.open(tokens.length)
  await decoder.read(cache, 0, tokens.slice(0, -1), { adapter: undefined })
  return (await decoder.decode(cache, tokens.slice(-1), [undefined]))[0]!
}

const QWEN3 = { architectures: ['Qwen3ForCausalLM'], model_type: 'qwen3', head_dim: 16 }
const MISTRAL = { architectures: ['MistralForCausalLM'], model_type: 'mistral', sliding_window: 5 }
const SCALED = {
  rope_scaling: {
    rope_type: 'llama3',
    factor: 4,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 32,
  },
}
const GPT2 = {
  architectures: ['GPT2LMHeadModel'],
  model_type: 'gpt2',
  n_embd: 32,
  n_head: 4,
  n_layer: 2,
  n_positions: 96,
  n_inner: null,
  activation_function: 'gelu_new',
  layer_norm_epsilon: 1e-5,
}

test.each([
  ['llama', {}, 'f32', 1e-5],
  ['llama, scaled rope, untied', { ...SCALED, tie_word_embeddings: false }, 'f32', 1e-5],
  ['mistral with a window', MISTRAL, 'f32', 1e-5],
  ['qwen3', QWEN3, 'f32', 1e-5],
  ['gpt2', GPT2, 'f32', 1e-5],
  ['llama in f16', {}, 'f16', 5e-3],
] as const)(
  'a decoder, all at once, with a cache, and padded: %s',
  async (_, config, dtype, most) => {
    const base = await writeTinyModel(await mkdtemp(join(folder, 'model-')), {
      config: { ...config },
    })
    const out = await exported(base, dtype)
    const tokens = [256, 72, 101, 108, 108, 111, 44, 32, 119, 111, 114, 108, 100]
    const want = await ours(base, tokens)

    // Other runtimes know no operators but the standard's.
    expect((await readFile(join(out, 'model.onnx'))).includes('com.microsoft')).toBe(false)
    const session = await InferenceSession.create(join(out, 'model.onnx'))
    const {
      head_dim: K,
      num_key_value_heads: G,
      vocab_size: V,
    } = (await openCheckpoint(base)).config
    const run = (
      rows: readonly (readonly number[])[],
      mask: readonly (readonly number[])[],
      places: readonly (readonly number[])[],
      past?: Record<string, Tensor>,
    ) => {
      const feeds: Record<string, Tensor> = {
        input_ids: ids(rows),
        attention_mask: ids(mask),
        position_ids: ids(places),
      }
      for (const name of session.inputNames)
        if (name.startsWith('past_key_values.'))
          feeds[name] =
            past?.[name.replace('past_key_values', 'present')] ??
            new Tensor('float32', new Float32Array(0), [rows.length, G, 0, K])
      return session.run(feeds) as Promise<Record<string, Tensor>>
    }
    const last = (logits: Tensor, row = 0) => {
      const [, S] = logits.dims as [number, number]
      return (logits.data as Float32Array).slice((row * S + S - 1) * V, (row * S + S) * V)
    }
    const ones = (n: number) => Array(n).fill(1)
    const upTo = (n: number) => Array.from({ length: n }, (_, i) => i)
    const n = tokens.length

    const whole = await run([tokens], [ones(n)], [upTo(n)])
    expect(whole.logits!.dims).toEqual([1, n, V])
    expect(relativeError(last(whole.logits!), want)).toBeLessThan(most)

    const begun = await run([tokens.slice(0, 7)], [ones(7)], [upTo(7)])
    const rest = await run([tokens.slice(7)], [ones(n)], [upTo(n).slice(7)], begun)
    expect(relativeError(last(rest.logits!), want)).toBeLessThan(most)

    const short = tokens.slice(0, 9)
    const padded = await run(
      [tokens, [0, 0, 0, 0, ...short]],
      [ones(n), [0, 0, 0, 0, ...ones(9)]],
      [upTo(n), [0, 0, 0, 0, ...upTo(9)]],
    )
    expect(relativeError(last(padded.logits!), want)).toBeLessThan(most)
    expect(relativeError(last(padded.logits!, 1), await ours(base, short))).toBeLessThan(most)
    await session.release()
  },
)

test('an encoder gives the vectors that we give', async () => {
  const base = await writeTinyEncoder(await mkdtemp(join(folder, 'encoder-')), { head: false })
  const out = await exported(base)
  const session = await InferenceSession.create(join(out, 'model.onnx'))
  const tokens = [5, 9, 7, 6]
  const encoders = new Encoders(1)
  const { results } = await encoders.encode(
    { type: 'encode', target: { model: base, cache: folder }, input: [tokens], task: 'embedding' },
    { signal: new AbortController().signal, turn: async () => ({ [Symbol.dispose]() {} }) },
  )
  await encoders.clear()
  const feeds: Record<string, Tensor> = {
    input_ids: ids([[...tokens, 0, 0]]),
    attention_mask: ids([[1, 1, 1, 1, 0, 0]]),
    token_type_ids: ids([[0, 0, 0, 0, 0, 0]]),
  }
  for (const name of Object.keys(feeds)) if (!session.inputNames.includes(name)) delete feeds[name]
  const { last_hidden_state: hidden } = await session.run(feeds)
  const D = hidden!.dims[2]!
  const mean = new Float32Array(D)
  for (let s = 0; s < tokens.length; s++)
    for (let d = 0; d < D; d++) mean[d]! += (hidden!.data as Float32Array)[s * D + d]!
  const length = Math.hypot(...mean)
  const got = mean.map((x) => x / length)
  const [told] = results
  if (told?.type !== 'embedding') throw new Error('No vector was given.')
  expect(relativeError(got, Float32Array.from(told.vector))).toBeLessThan(1e-5)
})
