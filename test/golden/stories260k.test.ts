// stories260k against PyTorch and PEFT: logits, gradients, twenty training steps. Fixtures by stories260k.py.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Example } from '../../src/engine/datasets/example.ts'
import { Decoder } from '../../src/engine/infer/decoder.ts'
import { argmax } from '../../src/engine/infer/sampler.ts'
import { type LoraLayout, loraLayout } from '../../src/engine/models/adapters.ts'
import { openTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { supervised } from '../../src/engine/train/methods/supervised.ts'
import { createMoments } from '../../src/engine/train/optimizer.ts'
import { createTrainer, type Trainer } from '../../src/engine/train/trainer.ts'
import { type MappedWeights, openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'
import { readFixture, readFixtureTensor, readFlat, relativeError } from '../support/fixtures.ts'
import { shared } from '../support/shared.ts'

const model = shared('models/stories260k')

interface Row {
  tokens: number[]
  weights: number[]
}

const example = ({ tokens, weights }: Row): Example => ({
  line: 1,
  tokens: Int32Array.from(tokens),
  weights: Float32Array.from(weights),
})

describe.skipIf(model.missing)('stories260k', () => {
  let cache: string
  let weights: MappedWeights
  let layout: LoraLayout

  beforeAll(async () => {
    cache = await mkdtemp(join(tmpdir(), 'luthier-golden-'))
    weights = await mapWeights(await openCheckpoint(model.path), cache)
    const { rank, alpha, target_modules } = await readFixture<{
      rank: number
      alpha: number
      target_modules: string[]
    }>('stories260k.lora.json')
    layout = loraLayout(weights, { rank, alpha, target_modules })
  })
  afterAll(() => rm(cache, { recursive: true }))

  const trainer = (
    adapter: Float32Array,
    shape: { rows: number; length: number },
    options: { weightDecay: number; maxGradNorm: number } = { weightDecay: 0, maxGradNorm: 1 },
  ): Promise<Trainer> =>
    createTrainer(
      { step: 0, adapter, moments: createMoments(layout.parameters) },
      {
        objective: supervised.objective({ weights, layout, shape }),
        threads: 1,
        turn: async () => ({ [Symbol.dispose]() {} }),
        ...options,
      },
    )

  test('greedy decoding from <s> gives the text that llama2.c pins', async () => {
    const checkpoint = await openCheckpoint(model.path)
    const tokenizer = await openTokenizer(checkpoint)
    await using decoder = new Decoder({ mapped: weights }, 1)
    const cache = decoder.newCache()
    const slot = cache.open(2)
    let logits = (await decoder.read(cache, slot, [1]))[0]!
    const tokens: number[] = []
    for (let i = 0; i < 199; i++) {
      tokens.push(argmax(logits))
      logits = (await decoder.decode(cache, [tokens.at(-1)!]))[0]!
    }
    expect(tokens.slice(0, 19)).toEqual([
      403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267,
    ])
    expect(tokenizer.decode(tokens)).toBe(
      'Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n' +
        'Lily\'s mom said, "Lily, let\'s go to the park." Lily was sad and didn\'t know what to do. She said, "I want to play with your ball, but I can\'t find it."\n' +
        "Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to do.\"\n" +
        "Lily didn't want to help her mom, so",
    )
  })

  // fp32 on both sides: what differs is the order of sums.
  test.each(['short', 'long'])('logits at every place: %s text', async (name) => {
    const tokens = await readFixtureTensor('stories260k.logits.safetensors', `${name}.tokens`)
    const want = await readFixtureTensor('stories260k.logits.safetensors', `${name}.logits`)
    await using decoder = new Decoder({ mapped: weights }, 1)
    const cache = decoder.newCache()
    const slot = cache.open(tokens.length)
    const got: number[] = []
    // The first half as one prompt, the rest token by token through the cache.
    const half = tokens.length / 2
    const read = async (some: ArrayLike<number>) =>
      got.push(...(await decoder.read(cache, slot, Array.from(some)))[0]!)
    await read(tokens.subarray(0, half))
    for (const token of tokens.subarray(half)) await read([token])
    expect(relativeError(got, want.subarray((half - 1) * 512))).toBeLessThan(1e-4)
  })

  test('every LoRA gradient, three examples packed into one row', async () => {
    const golden = await readFixture<{ examples: Row[]; loss: number }>('stories260k.lora.json')
    await using t = await trainer(await readFlat('stories260k.lora.safetensors', layout), {
      rows: 1,
      length: 128,
    })
    const { loss, gradient } = await t.gradient(golden.examples.map(example))
    expect(loss).toBeCloseTo(golden.loss, 5)
    const want = await readFlat('stories260k.lora-gradients.safetensors', layout)
    for (const m of layout.modules)
      for (const [from, to] of [
        [m.a, m.b],
        [m.b, m.b + m.out * layout.config.rank],
      ] as const)
        expect(
          relativeError(gradient.subarray(from, to), want.subarray(from, to)),
          m.name,
        ).toBeLessThan(1e-4)
  })

  test('the loss of an example does not depend on its neighbours in the row', async () => {
    const { examples } = await readFixture<{ examples: Row[] }>('stories260k.lora.json')
    const [a, b, c] = examples.map(example)
    const adapter = await readFlat('stories260k.lora.safetensors', layout)
    await using t = await trainer(adapter, { rows: 1, length: 128 })
    const silent = (e: Example): Example => ({ ...e, weights: e.weights.map(() => 0) })
    const alone = await t.evaluate([b!])
    // Another order in the row, other neighbours on both sides, and the same within rounding.
    const among = await t.evaluate([silent(a!), b!, silent(c!)])
    expect(Math.abs(among!.loss - alone!.loss) / alone!.loss).toBeLessThan(1e-6)
  })

  test('twenty steps: the losses of peft on identical weights, batches and hyperparameters', async () => {
    const golden = await readFixture<{
      weight_decay: number
      max_grad_norm: number
      examples: Row[]
      batches: number[][]
      steps: {
        learning_rate: number
        loss: number
        grad_norm: number
        token_accuracy: number
        trained_tokens: number
      }[]
    }>('stories260k.training.json')
    await using t = await trainer(
      await readFlat('stories260k.training-initial.safetensors', layout),
      { rows: 2, length: 64 },
      { weightDecay: golden.weight_decay, maxGradNorm: golden.max_grad_norm },
    )
    for (const [i, want] of golden.steps.entries()) {
      const batch = golden.batches[i]!.map((j) => example(golden.examples[j]!))
      const got = await t.step(batch, want.learning_rate)
      // The issue asks for 1e-3; fp32 on both sides gives 1e-6.
      expect(Math.abs(got.loss - want.loss) / want.loss, `step ${i + 1}`).toBeLessThan(1e-5)
      expect(Math.abs(got.gradNorm - want.grad_norm) / want.grad_norm).toBeLessThan(1e-4)
      expect(got.scores.mean_token_accuracy).toBeCloseTo(want.token_accuracy, 6)
      expect(got.tokens).toBe(want.trained_tokens)
    }
    const final = await readFlat('stories260k.training-final.safetensors', layout)
    expect(relativeError(t.state.adapter, final)).toBeLessThan(1e-3)
  })
})
