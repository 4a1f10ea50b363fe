// Adapters within their budget: who is idle leaves, who is used stays.

import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Residents } from '../../../../src/engine/infer/residents.ts'
import {
  adapterFromFlat,
  initialAdapter,
  loraLayout,
} from '../../../../src/engine/models/adapters.ts'
import {
  readAdapter,
  writeAdapter,
  writeAdapterConfig,
} from '../../../../src/engine/weights/adapter.ts'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../../../src/engine/weights/mapped.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
const cache = join(folder, 'cache')
let model: string
let adapters: string[]

beforeAll(async () => {
  await mkdir(cache, { recursive: true })
  model = await writeTinyModel(join(folder, 'tiny'))
  const weights = await mapWeights(await openCheckpoint(model), cache)
  adapters = await Promise.all(
    [4, 4, 8].map(async (rank, i) => {
      const layout = loraLayout(weights, { rank, alpha: 8, target_modules: ['q_proj', 'v_proj'] })
      const adapter = adapterFromFlat(layout, initialAdapter(layout, i), 'tiny')
      const own = join(folder, `adapter-${i}`)
      await mkdir(own)
      await writeFile(join(own, 'adapter_config.json'), writeAdapterConfig(adapter.config))
      await writeFile(join(own, 'adapter_model.safetensors'), writeAdapter(adapter))
      return join(own, 'adapter_model.safetensors')
    }),
  )
})
afterAll(() => rm(folder, { recursive: true, force: true }))

test('the longest unused leaves first; one that is being used stays beyond the budget', async () => {
  const target = (i: number) => ({ model, cache, adapter: adapters[i]! })
  const probe = new Residents({ threads: 1, precision: 'fp32' })
  const bytes: number[] = []
  for (const i of [0, 1, 2]) {
    using lease = await probe.use(target(i))
    bytes.push(lease.target.adapter!.bytes)
  }
  expect(probe.usage).toEqual({ adapters: 3, bytes: bytes.reduce((a, b) => a + b) })
  await probe.clear()

  const room = bytes[0]! + bytes[1]!
  const residents = new Residents({ threads: 1, precision: 'fp32', adapterBytes: room })
  const use = async (i: number) => {
    const lease = await residents.use(target(i))
    lease[Symbol.dispose]()
    return lease.target.key
  }
  const first = await use(0)
  const second = await use(1)
  expect(residents.usage).toEqual({ adapters: 2, bytes: room })
  // Used again, it is not the longest unused one any more.
  expect(await use(0)).toBe(first)
  const held = await residents.use(target(2))
  expect(residents.usage.bytes).toBeLessThanOrEqual(room + bytes[2]!)
  expect(residents.usage.adapters).toBeLessThan(3)
  expect(await use(1)).not.toBe(second)
  // Both of the others are idle, and the one that is held is all that there is room for.
  const again = await residents.use(target(2))
  expect(again.target.key).toBe(held.target.key)
  held[Symbol.dispose]()
  again[Symbol.dispose]()
  await residents.clear()
  expect(residents.usage).toEqual({ adapters: 0, bytes: 0 })
})

test('an adapter with a module that was trained whole is refused, not served without it', async () => {
  const { config, pairs } = await readAdapter(adapters[0]!)
  const own = join(folder, 'whole-module')
  await mkdir(own)
  const modules_to_save = ['lm_head']
  const saved = new Map([['lm_head.weight', { dims: [1, 1], data: Float32Array.of(1) }]])
  const adapter = { config: { ...config, modules_to_save }, pairs, saved }
  await writeFile(join(own, 'adapter_config.json'), writeAdapterConfig(adapter.config))
  await writeFile(join(own, 'adapter_model.safetensors'), writeAdapter(adapter))
  const residents = new Residents({ threads: 1, precision: 'fp32' })
  const target = { model, cache, adapter: join(own, 'adapter_model.safetensors') }
  await expect(residents.use(target)).rejects.toThrow(/lm_head\.weight, trained whole/)
  await residents.clear()
})

test('a model that is parted from waits for who uses it, and is loaded anew for who comes later', async () => {
  const residents = new Residents({ threads: 1, precision: 'fp32' })
  const target = { model, cache }
  const first = await residents.use(target)
  let parted = false
  const parting = residents.part(model).then((taken) => {
    parted = true
    return taken
  })
  const later = await residents.use(target)
  expect(later.target.key).not.toBe(first.target.key)
  expect(parted).toBe(false)
  first[Symbol.dispose]()
  await (await parting)[Symbol.asyncDispose]()
  later[Symbol.dispose]()
  await residents.clear()
})
