// luthier merge, as an operator runs it: a mergekit YAML in, a model out.

import { cp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
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
