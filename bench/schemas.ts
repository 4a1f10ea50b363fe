// tsx bench/schemas.ts MODEL CACHE [SCHEMAS=200] [PROMPTS=5] [FIRST=0]: JSON schemas at temperature 1, 512 tokens each; how
// many answers end, and whether each that ended validates by ajv. From FIRST on, so that a long run can be made in pieces.

import { Ajv } from 'ajv'
import { prepareSchema } from '../src/engine/grammar/schema.ts'
import type { InferThreadEvent, InferThreadRequest } from '../src/engine/infer/request.ts'
import { uniform } from '../src/engine/random.ts'
import { spawn } from '../src/engine/runtime/thread.ts'
import { ApiError } from '../src/errors.ts'

const [model, cache, schemas = '200', prompts = '5', first = '0'] = process.argv.slice(2)
if (!model || !cache) throw new Error('usage: schemas.ts MODEL CACHE [SCHEMAS] [PROMPTS] [FIRST]')

const PROMPTS = [
  'Describe a customer of a shop as JSON.',
  'Give me an example record in JSON.',
  'Answer in JSON: what is the weather like in Lisbon?',
  'Write down the order of a table of four as JSON.',
  'Make up a person and write them as JSON.',
]
const NAMES = ['name', 'city', 'age', 'items', 'status', 'code', 'notes', 'owner', 'total', 'tags']
const PATTERNS = ['^[A-Z]{2}-\\d{4}$', '^[a-z]+@[a-z]+\\.com$', '^#[0-9a-f]{6}$', '^\\d{3}-\\d{4}$']

/** A schema of this number; the same every time. */
function schemaOf(number: number): Record<string, unknown> {
  let drawn = 0
  const below = (n: number) => Math.floor(uniform(number, 0, drawn++) * n)
  const node = (depth: number): Record<string, unknown> => {
    switch (below(depth > 2 ? 6 : 9)) {
      case 0:
        return { type: 'string', maxLength: 10 + below(40) }
      case 1:
        return { enum: ['new', 'open', 'closed', below(9), null].slice(0, 2 + below(4)) }
      case 2:
        return { type: 'integer', minimum: -below(50), maximum: 1 + below(5000) }
      case 3:
        return { type: 'string', pattern: PATTERNS[below(PATTERNS.length)] }
      case 4:
        return { type: ['boolean', 'null'] }
      case 5:
        return { $ref: '#/$defs/point' }
      case 6:
        return { type: 'array', items: node(depth + 1), minItems: below(2), maxItems: 2 + below(3) }
      case 7:
        return { anyOf: [node(depth + 1), { type: 'null' }, { type: 'boolean' }] }
      default:
        return object(depth + 1)
    }
  }
  const object = (depth: number): Record<string, unknown> => {
    const names = NAMES.slice(below(5)).slice(0, 1 + below(4))
    const properties = Object.fromEntries(names.map((name) => [name, node(depth)]))
    const required = names.filter((_, i) => i === 0 || below(2) === 0)
    return { type: 'object', properties, required, additionalProperties: false }
  }
  const point = {
    type: 'object',
    properties: { x: { type: 'number' }, y: { type: 'integer' } },
    required: ['x', 'y'],
    additionalProperties: false,
  }
  return { ...object(0), $defs: { point } }
}

await using thread = spawn<InferThreadRequest, InferThreadEvent>(
  new URL('../src/engine/infer/worker.ts', import.meta.url),
)
/** Schemas, so many that a batch of the engine is nearly full. */
const AT_ONCE = Math.ceil(15 / Number(prompts))
const ajv = new Ajv({ strict: false })
const count = { answers: 0, ended: 0, valid: 0, tokens: 0, again: 0 }
const begun = performance.now()
let next = Number(first)
const end = next + Number(schemas)
await Promise.all(Array.from({ length: AT_ONCE }, askOn))
tell()

/** Takes one schema after the other, and asks all prompts of it at once. */
async function askOn(): Promise<void> {
  while (next < end) {
    const schema = schemaOf(next++)
    const validate = ajv.compile(schema)
    const asked = PROMPTS.slice(0, Number(prompts))
    await Promise.all(
      asked.map((prompt, seed) => ask(schema, prompt, { seed, validate, tries: 1 })),
    )
    if (next % 20 === 0) tell()
  }
}

function tell(): void {
  const seconds = (performance.now() - begun) / 1000
  console.log(
    `${count.answers} answers, ${count.ended} ended (${((100 * count.ended) / count.answers).toFixed(1)} %), ` +
      `${count.valid} of these valid; ${count.tokens} tokens in ${seconds.toFixed(0)} s, ${count.again} asked again`,
  )
}

const MOST_TRIES = 3

interface Asking {
  readonly seed: number
  readonly validate: (value: unknown) => boolean
  readonly tries: number
}

async function ask(schema: object, prompt: string, asking: Asking): Promise<void> {
  const { seed, validate, tries } = asking
  try {
    await answer(schema, prompt, seed, validate)
  } catch (error) {
    // Where the machine was stopped or overloaded meanwhile, time limits mean nothing: it is asked again.
    const isLate =
      error instanceof ApiError && (error.status === 503 || error.message.includes('in time'))
    if (!isLate || tries === MOST_TRIES) throw error
    count.again++
    await ask(schema, prompt, { seed, validate, tries: tries + 1 })
  }
}

async function answer(
  schema: object,
  prompt: string,
  seed: number,
  validate: (value: unknown) => boolean,
): Promise<void> {
  let text = ''
  for await (const event of thread.run({
    type: 'generate',
    target: { model: model!, cache: cache! },
    prompt: { messages: [{ role: 'user', content: prompt }] },
    max_tokens: 512,
    stop: [],
    n: 1,
    sampling: { temperature: 1, top_p: 1, seed },
    grammar: prepareSchema(schema, 'schema'),
  })) {
    if (event.type === 'delta') text += event.text
    if (event.type !== 'finish') continue
    count.answers++
    count.tokens += event.completion_tokens
    if (event.finish_reason !== 'stop') continue
    count.ended++
    if (isValid(text, validate)) count.valid++
    else console.log(`not valid: ${text}\n  of ${JSON.stringify(schema)}`)
  }
}

function isValid(text: string, validate: (value: unknown) => boolean): boolean {
  try {
    return validate(JSON.parse(text))
  } catch {
    return false
  }
}
