// A process that holds answers to a schema: tsx compile-schema.ts MODEL COMPUTED. It says `ready`, compiles the schema that
// it is sent, and says what came of it. A process of its own, so that it can be stopped.

import { once } from 'node:events'
import { Constraints } from '../../src/engine/grammar/constraints.ts'
import { prepareSchema } from '../../src/engine/grammar/schema.ts'
import { openTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { manyPatterns } from './schemas.ts'

const [model = '', computed, count] = process.argv.slice(2)
const tokenizer = await openTokenizer(await openCheckpoint(model))
const constraints = new Constraints({
  compileTime: { computed: Number(computed), passed: 300_000 },
})
const open = (schema: object) =>
  constraints.open(prepareSchema(schema, 'schema'), { tokenizer, vocab_size: 258 }, 1)
await open({ type: 'null' })
console.log('ready')
await once(process.stdin, 'data')
const outcome = open(manyPatterns(Number(count)))
console.log('asked')
console.log(
  await outcome.then(
    () => 'compiled',
    (error) => `${error}`,
  ),
)
process.exit()
