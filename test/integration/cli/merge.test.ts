// luthier merge, as an operator runs it: a mergekit YAML in, a model out.

import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  readAdapter,
  writeAdapter,
  writeAdapterConfig,
} from '../../../src/engine/weights/adapter.ts'
import { luthier } from '../../support/command.ts'
import { temporaryFolder } from '../../support/temporary.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

test('a YAML of mergekit becomes a model in the models folder, which is listed', async () => {
  const home = temporaryFolder()
  const models = join(home, 'models')
  await writeTinyModel(join(models, 'one'), { chat: true })
  await cp(join(models, 'one'), join(models, 'two'), { recursive: true })
  const config = join(home, 'merge.yml')
  await writeFile(
    config,
    `models: [{ model: one }, { model: two }]
merge_method: slerp
base_model: one
parameters: { t: 0.5 }
dtype: bfloat16
`,
  )
  const settings = { LUTHIER_HOME: home, LUTHIER_MODELS: models }
  const out = join(models, 'merged')
  expect(await luthier(settings, 'merge', config, out)).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('The model is in'),
  })
  expect(JSON.parse(await readFile(join(out, 'config.json'), 'utf8')).dtype).toBe('bfloat16')
  const listed = await luthier(settings, 'models')
  expect(listed.stdout).toContain('merged')

  await writeFile(config, 'models: [{ model: ../../etc }]\nmerge_method: linear\n')
  const refused = await luthier(settings, 'merge', config, join(home, 'none'))
  expect(refused.code).toBe(1)
  expect(refused.stderr).toContain('is neither a base model')
})

/** An adapter of q_proj in the first of two layers, by one column and one row. */
async function writeOne(folder: string, column: number) {
  const config = {
    r: 1,
    lora_alpha: 1,
    target_modules: ['q_proj'],
    lora_dropout: 0,
    use_rslora: false,
    use_dora: false,
    base_model_name_or_path: 'one',
  }
  const pair = (by: number) => ({
    a: Float32Array.from({ length: 32 }, (_, i) => (i === column ? by : 0)),
    b: new Float32Array(32).fill(0.25),
    in_features: 32,
    out_features: 32,
  })
  const pairs = new Map(
    [0, 1].map((layer) => [`model.layers.${layer}.self_attn.q_proj`, pair(layer + 1)]),
  )
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, 'adapter_model.safetensors'), writeAdapter({ config, pairs }))
  await writeFile(join(folder, 'adapter_config.json'), writeAdapterConfig(config))
}

test('adapters are combined, folded into their base, and extracted from it again', async () => {
  const home = temporaryFolder()
  const models = join(home, 'models')
  await writeTinyModel(join(models, 'one'), { chat: true })
  await writeOne(join(home, 'left'), 3)
  await writeOne(join(home, 'right'), 5)
  const settings = { LUTHIER_HOME: home, LUTHIER_MODELS: models }
  const config = join(home, 'merge.yml')
  const merged = async (text: string, out: string) => {
    await writeFile(config, text)
    const result = await luthier(settings, 'merge', config, join(home, out))
    expect(result).toMatchObject({ code: 0 })
    return result.stdout
  }
  const list = [join(home, 'left'), join(home, 'right')]
  const said = await merged(
    `combination_type: cat\nadapters: ${JSON.stringify(list)}\nweights: [2, -1]\n`,
    'both',
  )
  expect(said).toContain('2 modules')
  const both = await readAdapter(join(home, 'both', 'adapter_model.safetensors'))
  expect(both.config).toMatchObject({ r: 2, lora_alpha: 2, base_model_name_or_path: 'one' })
  const { a } = both.pairs.get('model.layers.1.self_attn.q_proj')!
  expect([a[3], a[32 + 5]]).toEqual([4, -2])

  await merged(
    `merge_method: passthrough\nmodels: [{ model: "one+${join(home, 'both')}" }]\n`,
    'models/folded',
  )
  const told = await merged(
    'extract_adapter: folded\nbase_model: one\nmax_rank: 4\nsv_epsilon: 1e-4\nrank_pattern: { q_proj: 2 }\n',
    'out',
  )
  expect(told).toMatch(/The adapter has (100\.00|99\.9\d) % of the squared difference/)
  const out = await readAdapter(join(home, 'out', 'adapter_model.safetensors'))
  expect(out.config.r).toBe(4)
  const found = out.pairs.get('model.layers.1.self_attn.q_proj')!
  const element = (o: number, i: number) => {
    let sum = 0
    for (let k = 0; k < 4; k++) sum += found.b[o * 4 + k]! * found.a[k * 32 + i]!
    return sum
  }
  expect(element(7, 3)).toBeCloseTo(1, 5)
  expect(element(7, 5)).toBeCloseTo(-0.5, 5)
  expect(element(7, 6)).toBeCloseTo(0, 5)
})
