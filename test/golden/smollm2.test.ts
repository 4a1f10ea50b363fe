// SmolLM2-135M-Instruct from its Q4_1 GGUF against transformers. Fixture by smollm2.py.

import { mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { Decoder } from '../../src/engine/infer/decoder.ts'
import { argmax } from '../../src/engine/infer/sampler.ts'
import { renderChat } from '../../src/engine/tokenizer/chat-template.ts'
import { openTokenizer, type Tokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import {
  type Checkpoint,
  type MappedWeights,
  openCheckpoint,
} from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'
import { readFixture } from '../support/fixtures.ts'
import { testModel } from '../support/shared.ts'

const model = testModel('SmolLM2-135M-Instruct.Q4_1.gguf')

interface Prompt {
  messages: { role: string; content: string }[]
  text: string
  tokens: number[]
  top: [number, number][]
  every_97th: number[]
  greedy: number[]
  margins: number[]
}

describe.skipIf(model.missing)('SmolLM2-135M-Instruct', () => {
  let checkpoint: Checkpoint
  let tokenizer: Tokenizer
  let weights: MappedWeights
  let prompts: Prompt[]
  let texts: { text: string; tokens: number[] }[]

  beforeAll(async () => {
    const fixture = await readFixture<{ prompts: Prompt[]; texts: typeof texts }>('smollm2.json')
    prompts = fixture.prompts
    texts = fixture.texts
    checkpoint = await openCheckpoint(model.path)
    tokenizer = await openTokenizer(checkpoint)
    // 540 MB: beside the model, so that runs share it.
    const cache = join(dirname(model.path), 'converted')
    await mkdir(cache, { recursive: true })
    weights = await mapWeights(checkpoint, cache)
  })

  test('chats render and encode as transformers does it', () => {
    for (const { messages, text, tokens } of prompts) {
      const { bos_token, eos_token } = tokenizer
      const options = { add_generation_prompt: true, bos_token, eos_token }
      expect(renderChat(checkpoint.chat_template, messages, options)).toBe(text)
      expect(tokenizer.encode(text, { special: false })).toEqual(tokens)
    }
  })

  test('texts encode as the reference does it, numbers that are no ASCII digits too', () => {
    for (const { text, tokens } of texts) expect(tokenizer.encode(text)).toEqual(tokens)
  })

  test('logits at the last place and 24 greedy tokens', async () => {
    await using decoder = new Decoder({ mapped: weights }, 2)
    const cache = decoder.newCache()
    for (const { tokens, top, every_97th, greedy, margins } of prompts) {
      const slot = cache.open(tokens.length + greedy.length)
      let logits = (await decoder.read(cache, slot, tokens))[0]!
      const largest = Math.abs(top[0]![1])
      const error = (id: number, want: number) => Math.abs(logits[id]! - want) / largest
      for (const [id, want] of top) expect(error(id, want)).toBeLessThan(1e-3)
      for (const [i, want] of every_97th.entries()) expect(error(97 * i, want)).toBeLessThan(1e-3)

      for (const [i, want] of greedy.entries()) {
        const got = argmax(logits)
        // Where the two best are closer than the tolerance, either may win: then the texts part.
        if (got !== want) {
          expect(margins[i]).toBeLessThan(1e-3 * largest)
          break
        }
        logits = (await decoder.decode(cache, [want]))[0]!
      }
      cache.close(slot)
    }
  })
})
