// The command line as a user starts it: the launcher under node, in a process of its own.

import { copyFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { luthier as run } from '../../support/command.ts'
import { testModel } from '../../support/shared.ts'

const smollm2 = testModel('SmolLM2-135M-Instruct.Q4_1.gguf')

let root: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'luthier-cli-'))
})
afterEach(() => rm(root, { recursive: true, force: true }))

const luthier = (...args: string[]) => run({ LUTHIER_HOME: join(root, 'home') }, ...args)

const pulls = test.skipIf(smollm2.missing)

pulls(
  'a pulled model is listed under its own name, and a second one of that name is refused',
  async () => {
    await copyFile(smollm2.path, join(root, 'Small-1B.Q4_1.gguf'))
    const path = join(root, 'home/models/Small-1B.gguf')

    expect(await luthier('models')).toMatchObject({ code: 0, stdout: '' })
    expect(await luthier('pull', `file:${join(root, 'Small-1B.Q4_1.gguf')}`)).toMatchObject({
      code: 0,
      stdout: `Small-1B is at ${path}\n`,
    })
    expect(await luthier('models')).toMatchObject({ code: 0, stdout: `Small-1B\t${path}\n` })

    const again = await luthier('pull', `file:${join(root, 'Small-1B.Q4_1.gguf')}`)
    expect(again.code).toBe(1)
    expect(again.stderr).toContain('--as NAME')
  },
)

test('a mistake is one sentence and exit code 1', async () => {
  expect(await luthier('train', '.', '--model', 'nobody')).toEqual({
    code: 1,
    stdout: '',
    stderr: `luthier: "nobody" is neither a base model in ${join(root, 'home/models')} (none yet) nor a path of one.\n`,
  })
})
