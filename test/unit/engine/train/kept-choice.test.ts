import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import { settledPrecision, type Triable } from '../../../../src/engine/train/kept-choice.ts'
import type { Plan } from '../../../../src/engine/train/request.ts'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
const figures = 'int8 is 1.60 times as fast as fp32 here'
let of: Triable
let tries: number
let suites = 0

beforeEach(async () => {
  tries = 0
  const cache = join(folder, `cache-${suites++}`)
  const checkpoint = await openCheckpoint(await writeTinyModel(join(folder, `tiny-${suites}`)))
  of = { checkpoint, cache, method: 'supervised', plan: { threads: 2 } as Plan }
})

const settle = (part: Partial<Triable> = {}, isClear = true) =>
  settledPrecision({ ...of, ...part }, async () => {
    tries++
    return { choice: { precision: 'int8', reason: figures }, isClear, trainer: undefined }
  })

test('a clear choice is kept for the base, and says that it is a kept one', async () => {
  expect((await settle()).choice).toEqual({ precision: 'int8', reason: figures })
  const kept = `${figures}; kept from a trial of this base at `
  for (let again = 0; again < 2; again++) {
    const { choice } = await settle()
    expect(choice).toEqual({ precision: 'int8', reason: expect.stringMatching(`^${kept}20`) })
  }
  expect(tries).toBe(1)
})

test('one that is not clear is tried by every job', async () => {
  await settle({}, false)
  expect((await settle({}, false)).choice.reason).toBe(figures)
  expect(tries).toBe(2)
})

test('what could come to another choice is tried', async () => {
  await settle()
  await settle({ plan: { threads: 1 } as Plan })
  await settle({ method: 'dpo' })
  await settle({ initial: 'an adapter that goes on' })
  await settle({ plan: { threads: 2, device: 'webgpu' } as Plan })
  const other = await writeTinyModel(join(folder, `other-${suites}`))
  await settle({ checkpoint: await openCheckpoint(other) })
  expect(tries).toBe(6)
})

test('a file that was cut off, or says nothing that is known, is tried again', async () => {
  await settle()
  const [name] = await readdir(of.cache)
  for (const content of ['{"precision":"int8","rea', '{"precision":"int4"}', '{}', 'null']) {
    await mkdir(of.cache, { recursive: true })
    await writeFile(join(of.cache, name!), content)
    expect((await settle()).choice.reason).toBe(figures)
    expect((await settle()).choice.reason).not.toBe(figures)
  }
  expect(tries).toBe(5)
})
