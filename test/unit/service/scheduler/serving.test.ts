import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import type { InferEvent } from '../../../../src/engine/infer/request.ts'
import type { ResolvedModel } from '../../../../src/service/models/model.ts'
import {
  type Generation,
  Serving,
  type ServingOptions,
} from '../../../../src/service/scheduler/serving.ts'

const base: ResolvedModel = { id: 'm', base_path: '/models/m', root: 'm', project_id: 'proj' }
const tuned: ResolvedModel = { ...base, adapter: { sha256: 'aa', config_sha256: 'bb' } }

const errors: string[] = []
let serving: Serving

function start(capacity?: number, more: Partial<ServingOptions> = {}) {
  serving = new Serving({
    takeTurn: async () => ({ [Symbol.dispose]() {} }),
    cache: '/cache',
    adapterFile: async (model) => `/adapters/${model.adapter?.sha256}/adapter_model.safetensors`,
    log: { error: (_, message) => errors.push(message) },
    entry: new URL('./fragile-worker.ts', import.meta.url),
    ...(capacity === undefined ? {} : { capacity }),
    ...more,
  })
}

afterEach(async () => {
  errors.length = 0
  await serving[Symbol.asyncDispose]()
})

const never = new AbortController().signal

async function ask(
  text: string,
  { model = base, n = 1, signal = never, low_priority = false } = {},
) {
  const generation: Generation = {
    ...(low_priority && { low_priority }),
    prompt: { text },
    stop: [],
    n,
    sampling: { temperature: 0, top_p: 1, seed: 0 },
  }
  const events: InferEvent[] = []
  for await (const event of serving.generate(model, generation, signal)) events.push(event)
  return events.flatMap((event) => (event.type === 'delta' ? [event.text] : [])).join('')
}

/** Until the condition holds; the test's own time limit ends a wait in vain. */
async function until(condition: () => boolean) {
  while (!condition()) await sleep(5)
}

test('a base model and a tuned one are the same base with and without an adapter', async () => {
  start()
  await serving.warm(tuned)
  expect(JSON.parse(await ask('hi'))).toEqual({ model: '/models/m', cache: '/cache' })
  expect(JSON.parse(await ask('hi', { model: tuned }))).toEqual({
    model: '/models/m',
    cache: '/cache',
    adapter: '/adapters/aa/adapter_model.safetensors',
  })
})

test('a request whose thread dies gets 503 and the next one works', async () => {
  start()
  const waiting = ask('wait')
  await until(() => serving.taken === 1)
  const both = await Promise.allSettled([ask('die'), waiting])
  for (const result of both)
    expect(result).toMatchObject({
      status: 'rejected',
      reason: { status: 503, headers: { 'retry-after': '1' } },
    })
  expect(errors).toEqual(['inference thread died'])
  expect(await ask('hi')).toContain('/models/m')
  expect(serving.taken).toBe(0)
})

test('errors of a request are its own: the thread lives on', async () => {
  start()
  await expect(ask('mend')).rejects.toMatchObject({ status: 400, param: 'prompt' })
  await expect(ask('break')).rejects.toThrow('a bug')
  expect(await ask('hi')).toContain('/models/m')
  expect(errors).toEqual([])
})

test('what does not fit is sent away, and an abort frees the place', async () => {
  start(3)
  const abort = new AbortController()
  const waiting = ask('wait', { n: 2, signal: abort.signal })
  await until(() => serving.taken === 2)
  await expect(ask('hi', { n: 2 })).rejects.toMatchObject({
    status: 429,
    headers: { 'retry-after': '1' },
  })
  expect(await ask('hi')).toContain('/models/m')
  abort.abort()
  await waiting.catch(() => {})
  expect(serving.taken).toBe(0)
  expect(await ask('hi', { n: 2 })).toContain('/models/m')
})

test('one project does not take every place, and requests are timed', async () => {
  const timed: string[] = []
  start(3, { projectCapacity: 2, timed: (what) => timed.push(what) })
  const abort = new AbortController()
  const waiting = ask('wait', { n: 2, signal: abort.signal })
  await until(() => serving.taken === 2)
  await expect(ask('hi')).rejects.toMatchObject({ status: 429, code: 'rate_limit_exceeded' })
  expect(await ask('hi', { model: { ...base, project_id: 'other' } })).toContain('/models/m')
  expect(timed).toContain('request')
  abort.abort()
  await waiting.catch(() => {})
  expect(await ask('hi')).toContain('/models/m')
})

test('after it was closed nothing new is taken', async () => {
  start()
  await ask('hi')
  await serving[Symbol.asyncDispose]()
  await expect(ask('hi')).rejects.toMatchObject({ status: 503 })
})

test('what nobody waits for leaves half of the places to those who do', async () => {
  start(4)
  const abort = new AbortController()
  const waiting = ask('wait', { n: 2, signal: abort.signal, low_priority: true })
  await until(() => serving.taken === 2)
  await expect(ask('hi', { low_priority: true })).rejects.toMatchObject({ status: 429 })
  expect(await ask('hi')).toContain('/models/m')
  abort.abort()
  await waiting
})
