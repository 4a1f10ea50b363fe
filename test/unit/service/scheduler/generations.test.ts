import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { InferEvent } from '../../../../src/engine/infer/request.ts'
import { best, gather, merge } from '../../../../src/service/scheduler/generations.ts'

async function* at(times: [number, string][]) {
  let now = 0
  for (const [time, value] of times) {
    await sleep(time - now)
    now = time
    yield value
  }
}

async function all<T>(source: AsyncIterable<T>) {
  const values: T[] = []
  for await (const value of source) values.push(value)
  return values
}

test('merged sources give their values in the order in which they come', async () => {
  const values = await all(
    merge([
      at([
        [0, 'a'],
        [200, 'd'],
      ]),
      at([[100, 'c']]),
      at([[50, 'b']]),
      at([]),
    ]),
  )
  expect(values).toEqual(['a', 'b', 'c', 'd'])
})

test('a source that is always ready does not keep the others waiting', async () => {
  async function* ready(value: string) {
    for (let i = 0; i < 3; i++) yield value
  }
  expect((await all(merge([ready('a'), ready('b')]))).slice(0, 4)).toEqual(['a', 'b', 'a', 'b'])
})

test('one failing source fails the whole and ends the others, read on or not', async () => {
  const ended: string[] = []
  async function* endless() {
    try {
      while (true) {
        yield 'x'
        await sleep(1)
      }
    } finally {
      ended.push('endless')
    }
  }
  // biome-ignore lint/correctness/useYield: it fails before its first value.
  async function* failing(): AsyncGenerator<string, void, undefined> {
    await sleep(20)
    throw new Error('broken')
  }
  await expect(all(merge([endless(), failing()]))).rejects.toThrow('broken')
  await sleep(20)
  expect(ended).toEqual(['endless'])
})

test('events are gathered into one text a choice, in order', async () => {
  async function* events(): AsyncGenerator<InferEvent> {
    yield { type: 'prompt', prompt_tokens: 7 }
    yield { type: 'delta', index: 1, text: 'b' }
    yield { type: 'delta', index: 0, text: 'a' }
    yield { type: 'finish', index: 1, finish_reason: 'length', completion_tokens: 2 }
    yield { type: 'delta', index: 0, text: 'A' }
    yield { type: 'finish', index: 2, finish_reason: 'stop', completion_tokens: 1 }
    yield { type: 'finish', index: 0, finish_reason: 'stop', completion_tokens: 3 }
  }
  expect(await gather(events())).toEqual({
    prompt_tokens: 7,
    completion_tokens: 6,
    cached_tokens: 0,
    choices: [
      { text: 'aA', finish_reason: 'stop' },
      { text: 'b', finish_reason: 'length' },
      { text: '', finish_reason: 'stop' },
    ],
  })
})

test('listed tokens are gathered in order, and in time that grows with their number alone', async () => {
  const N = 50_000
  async function* events(): AsyncGenerator<InferEvent> {
    for (let i = 0; i < N; i++) {
      const token = { token: `${i}`, bytes: [], logprob: -1, offset: i, top: [] }
      yield { type: 'delta', index: 0, text: 'x', tokens: [token] }
    }
    yield { type: 'finish', index: 0, finish_reason: 'length', completion_tokens: N }
  }
  const { tokens } = (await gather(events())).choices[0]!
  expect(tokens?.length).toBe(N)
  expect(tokens?.every(({ offset }, at) => offset === at)).toBe(true)
  // Copied at every delta, this many tokens took more than the time that a test has.
})

test('the best of each prompt are those with the highest mean, the best first', () => {
  const choice = (text: string, mean_logprob?: number) => ({
    text,
    finish_reason: 'stop' as const,
    ...(mean_logprob !== undefined && { mean_logprob }),
  })
  const answers = {
    prompt_tokens: 1,
    completion_tokens: 9,
    cached_tokens: 0,
    choices: [choice('a', -2), choice('b', -1), choice('c', -3)].concat(
      choice('d', -1),
      choice('e'),
      choice('f', -1),
    ),
  }
  const texts = (n: number, from: number) => best(answers, n, from).choices.map(({ text }) => text)
  expect(texts(2, 3)).toEqual(['b', 'a', 'd', 'f'])
  expect(texts(3, 3)).toEqual(['a', 'b', 'c', 'd', 'e', 'f'])
  expect(best(answers, 1, 3)).toMatchObject({ prompt_tokens: 1, completion_tokens: 9 })
})
