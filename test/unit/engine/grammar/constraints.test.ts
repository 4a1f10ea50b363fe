import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { beforeAll, expect, test } from 'vitest'
import { Constraints } from '../../../../src/engine/grammar/constraints.ts'
import { prepareSchema } from '../../../../src/engine/grammar/schema.ts'
import { openTokenizer, type Tokenizer } from '../../../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { manyPatterns } from '../../../support/schemas.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
let model: string
let tokenizer: Tokenizer
beforeAll(async () => {
  model = await writeTinyModel(join(folder, 'tiny'))
  tokenizer = await openTokenizer(await openCheckpoint(model))
})

const open = (constraints: Constraints, schema: object) =>
  constraints.open(prepareSchema(schema, 'schema'), { tokenizer, vocab_size: 258 }, 1)

test.each([
  [
    'computes longer than it may is the schema of a client that is told so',
    { computed: 500, passed: 300_000 },
    { status: 400, code: 'invalid_json_schema', param: 'schema' },
  ],
  [
    "takes long without having computed much is nobody's fault",
    { computed: 300_000, passed: 500 },
    { status: 503 },
  ],
])('what %s, and the next schema has a thread again', async (_, compileTime, error) => {
  const constraints = new Constraints({ compileTime })
  await expect(open(constraints, manyPatterns(300))).rejects.toMatchObject(error)
  using held = await open(constraints, { type: 'null' })
  const allowed = held.constraints[0]!.mask()
  const letters = Array.from({ length: 256 }, (_, id) => id).filter(
    (id) => (allowed[id >> 5]! >> (id & 31)) & 1,
  )
  expect(letters).toEqual(['n'.charCodeAt(0)])
})

/** Of the kernel's clocks for threads nothing is known elsewhere. */
const isTold = process.platform === 'linux'

test.skipIf(!isTold)(
  'on a machine that mostly stands still a schema has as much time as elsewhere',
  async () => {
    const script = fileURLToPath(new URL('../../../support/compile-schema.ts', import.meta.url))
    const args = ['--import', 'tsx', script, model, '4000', '100']
    const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const exited = once(child, 'exit')
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
    expect(await lines.next()).toMatchObject({ value: 'ready' })
    child.stdin.write('go\n')
    expect(await lines.next()).toMatchObject({ value: 'asked' })
    // Six seconds, of which it computes a tenth; the schema takes a second of computing, and may take four.
    for (let time = 0; time < 60; time++) {
      child.kill('SIGSTOP')
      await sleep(90)
      child.kill('SIGCONT')
      await sleep(10)
    }
    expect(await lines.next()).toMatchObject({ value: 'compiled' })
    await exited
  },
  60_000,
)
