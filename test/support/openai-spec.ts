// Holds replies against OpenAI's own description of its API, where that is on this machine.

import { readFileSync } from 'node:fs'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import type { FastifyInstance } from 'fastify'
import { parse } from 'yaml'
import { shared } from './shared.ts'

const spec = shared('spec/openai.yaml')

/** What was answered, as far as the description speaks of it. */
interface Reply {
  method: string
  /** With or without a query. */
  url: string
  status: number
  type: string
}

const CHOICE = '/components/schemas/CreateCompletionResponse/properties/choices/items/properties'
const LOGPROBS = `${CHOICE}/logprobs/anyOf/0/properties`
const orNull = (schema: Schema): Schema => ({ anyOf: [schema, { type: 'null' }] })

/**
 * Where the description contradicts the service that it describes, or its clients: the schema at `at` is changed as
 * `to` says. A row whose place is not there any more fails.
 */
const CONTRADICTIONS: { at: string; to: (schema: Schema) => Schema; why: string }[] = [
  {
    at: '/components/schemas/FineTuningJob/properties/status',
    to: ({ enum: known, ...rest }) => ({ ...rest, enum: [...(known as string[]), 'paused'] }),
    why: 'The example of pausing a job shows the status `paused`; the list of them lacks it.',
  },
  {
    at: '/components/schemas/OpenAIFile/properties/purpose',
    to: ({ enum: known, ...rest }) => ({ ...rest, enum: [...(known as string[]), 'evals'] }),
    why: 'A file may be created for `evals`; the list of what a file is for lacks it.',
  },
  {
    at: '/components/schemas/ListFilesResponse/properties/first_id',
    to: orNull,
    why: 'An empty list has no first file; the field is required.',
  },
  {
    at: '/components/schemas/ListFilesResponse/properties/last_id',
    to: orNull,
    why: 'An empty list has no last file; the field is required.',
  },
  {
    at: `${LOGPROBS}/token_logprobs/items`,
    to: orNull,
    why: 'The first token of an echoed prompt has no probability; harnesses expect null.',
  },
  {
    at: `${LOGPROBS}/top_logprobs/items`,
    to: orNull,
    why: 'As above.',
  },
  {
    at: `${CHOICE}/finish_reason`,
    to: orNull,
    why: 'Streamed and whole answers share the schema, and only the last chunk of a choice has a reason.',
  },
]

for (const list of [
  'ChatCompletionList',
  'ChatCompletionMessageList',
  'EvalList',
  'EvalRunList',
  'EvalRunOutputItemList',
  'ResponseItemList',
])
  for (const end of ['first_id', 'last_id'])
    CONTRADICTIONS.push({
      at: `/components/schemas/${list}/properties/${end}`,
      to: orNull,
      why: 'An empty list has no such object; the field is required.',
    })
for (const end of ['first_id', 'last_id'])
  CONTRADICTIONS.push({
    at: `/components/schemas/ListBatchesResponse/properties/${end}`,
    to: orNull,
    why: 'An empty list has no such object; in other lists it is null then.',
  })
for (const at of [
  '/components/schemas/EvalRun/properties/error',
  '/components/schemas/EvalRunOutputItem/properties/sample/properties/error',
])
  CONTRADICTIONS.push({ at, to: orNull, why: 'The examples show null where nothing went wrong.' })

CONTRADICTIONS.push({
  at: '/components/schemas/ChatCompletionMessageList/properties/data/items/allOf/0',
  to: () => ({
    type: 'object',
    required: ['content', 'refusal', 'role'],
    properties: {
      content: { type: ['string', 'null'] },
      refusal: { type: ['string', 'null'] },
      role: { type: 'string' },
    },
  }),
  why: 'The messages of a request are of any role, as the example shows; the schema is that of an answer.',
})
CONTRADICTIONS.push({
  at: '/paths/~1responses~1{response_id}/delete/responses/200',
  to: (described) => ({
    ...described,
    content: {
      'application/json': {
        schema: {
          type: 'object',
          required: ['id', 'object', 'deleted'],
          properties: {
            id: { type: 'string' },
            object: { const: 'response' },
            deleted: { const: true },
          },
        },
      },
    },
  }),
  why: 'The example of deleting a response shows a body; the description has none.',
})

for (const source of ['Completions', 'Responses'])
  CONTRADICTIONS.push({
    at: `/components/schemas/CreateEval${source}RunDataSource/properties/input_messages/oneOf/0/properties/template/items`,
    to: ({ oneOf, ...rest }) => ({ ...rest, anyOf: oneOf }),
    why: 'A message with a role and a text is both of the kinds of which it is to be exactly one.',
  })

type Schema = Record<string, unknown>
type Operation = {
  parameters?: unknown[]
  requestBody?: { content?: Record<string, { schema?: unknown }> }
  responses?: Record<string, { content?: Record<string, { schema?: unknown }> }>
}

interface Spec {
  document: Schema
  ajv: Ajv2020
  paths: [RegExp, string, Record<string, Operation>][]
}
let loaded: Spec | undefined

/** Throws where a JSON body, or one event of a stream, is not what the description says. Other routes pass. */
export function checkReply(reply: Reply, body: unknown): void {
  if (spec.missing) return
  const check = validatorOf(reply)
  if (!check || check(body)) return
  const { method, url, status } = reply
  throw new Error(
    `${method} ${url} ${status} is not as OpenAI describes it: ${load().ajv.errorsText(check.errors)} in ${JSON.stringify(body)}`,
  )
}

/** The operation that a request is described as, `get /files/{file_id}`. */
export function operationOf(method: string, url: string): string | undefined {
  const found = find(method, url)
  return found && `${method.toLowerCase()} ${found.template}`
}

function find(method: string, url: string) {
  const path = url.replace(/[?#].*$/, '').replace(/^\/v1(?=\/)/, '')
  // `/fine_tuning/alpha` and the like stand before templates that would take them.
  for (const [pattern, template, item] of load().paths) {
    const operation = item[method.toLowerCase()]
    if (operation && pattern.test(path)) return { template, operation }
  }
  return undefined
}

/** The names of all fields that OpenAI describes for the JSON body of an operation, and for its query. */
export function fieldsOf(method: string, url: string): { body: string[]; query: string[] } {
  const operation = find(method, url)?.operation
  const parameters = (operation?.parameters ?? []).map(resolve) as { in: string; name: string }[]
  const schema = operation?.requestBody?.content?.['application/json']?.schema
  return {
    body: [...namesIn(schema)],
    query: parameters.filter((one) => one.in === 'query').map(({ name }) => name),
  }
}

function namesIn(schema: unknown): Set<string> {
  const {
    properties = {},
    allOf = [],
    anyOf = [],
    oneOf = [],
  } = resolve(schema ?? {}) as {
    properties?: object
    allOf?: unknown[]
    anyOf?: unknown[]
    oneOf?: unknown[]
  }
  const inside = [...allOf, ...anyOf, ...oneOf].flatMap((one) => [...namesIn(one)])
  return new Set([...Object.keys(properties), ...inside])
}

/** What a local `$ref` leads to; anything else is what it is. */
function resolve(node: unknown): unknown {
  const { $ref } = node as { $ref?: string }
  if ($ref === undefined) return node
  const steps = $ref.split('/').slice(1)
  return resolve(steps.reduce((at, step) => (at as Schema)[step], load().document as unknown))
}

function validatorOf({ method, url, status, type }: Reply): ValidateFunction | undefined {
  const found = find(method, url)
  if (!found) return undefined
  const { ajv } = load()
  if (status >= 400) return ajv.getSchema('openai#/components/schemas/ErrorResponse')
  const content = found.operation.responses?.[String(status)]?.content ?? {}
  // A stream without a schema of its own has chunks like the whole (`/completions`).
  const media = content[type] ? type : 'application/json'
  if (!content[media]?.schema)
    throw new Error(`${method} ${url}: no ${status} ${media} is described.`)
  const steps = ['paths', found.template, method.toLowerCase(), 'responses', String(status)]
  return ajv.getSchema(`openai#${pointer([...steps, 'content', media, 'schema'])}`)
}

const pointer = (steps: readonly string[]) =>
  steps
    .map((step) => `/${encodeURIComponent(step.replaceAll('~', '~0').replaceAll('/', '~1'))}`)
    .join('')

function load(): Spec {
  if (loaded) return loaded
  const document = parse(readFileSync(spec.path, 'utf8'), { maxAliasCount: -1 }) as Schema
  for (const { at, to } of CONTRADICTIONS) mend(document, at, to)
  const paths = document.paths as Record<string, Record<string, Operation>>
  const ajv = new Ajv2020({ strict: false, validateFormats: false, validateSchema: false })
  ajv.addSchema(modern(document) as Schema, 'openai')
  loaded = {
    document,
    ajv,
    paths: Object.entries(paths)
      .toSorted(([a], [b]) => a.split('{').length - b.split('{').length)
      .map(([path, item]) => [new RegExp(`^${path.replace(/\{\w+\}/g, '[^/]+')}$`), path, item]),
  }
  return loaded
}

function mend(document: Schema, at: string, to: (schema: Schema) => Schema): void {
  const steps = at
    .split('/')
    .slice(1)
    .map((step) => step.replaceAll('~1', '/'))
  const last = steps.pop() ?? ''
  const parent = steps.reduce<Schema | undefined>((node, step) => node?.[step] as Schema, document)
  const found = parent?.[last]
  if (!parent || typeof found !== 'object' || found === null)
    throw new Error(`openai.yaml has nothing at ${at} that could be mended.`)
  parent[last] = to(found as Schema)
}

/** The words of OpenAPI 3.0 that stand in this 3.1 document, in those of JSON Schema. */
function modern(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(modern)
  if (typeof node !== 'object' || node === null) return node
  const { nullable, exclusiveMinimum, ...rest } = node as Schema
  const schema = Object.fromEntries(
    Object.entries(rest).map(([key, value]) => [key, modern(value)]),
  )
  if (exclusiveMinimum === true) {
    schema.exclusiveMinimum = schema.minimum
    delete schema.minimum
  } else if (exclusiveMinimum !== undefined) schema.exclusiveMinimum = modern(exclusiveMinimum)
  return nullable === true ? { anyOf: [schema, { type: 'null' }] } : schema
}

const typeOf = (header: string | null | undefined) => (header ?? '').split(';')[0]!.trim()

/** Every reply that a test gets by `inject` is held against the description. */
export function checkInjected(app: FastifyInstance): void {
  const inject = app.inject.bind(app) as (options: object) => ReturnType<FastifyInstance['inject']>
  const checked = async (options: { method?: string; url: string }) => {
    const reply = (await inject(options)) as unknown as {
      statusCode: number
      headers: Record<string, string | undefined>
      body: string
    }
    const type = typeOf(reply.headers['content-type'])
    const { method = 'GET', url } = options
    checkText({ method, url, status: reply.statusCode, type }, reply.body)
    return reply
  }
  app.inject = checked as unknown as typeof app.inject
}

/** A fetch for `new OpenAI({ fetch })` whose replies are held against the description, events as they come. */
export const specFetch =
  (inner: typeof fetch = fetch): typeof fetch =>
  async (input, init) => {
    const reply = await inner(input, init)
    const url = new URL(input instanceof Request ? input.url : input)
    const type = typeOf(reply.headers.get('content-type'))
    const method = init?.method ?? 'GET'
    const described = { method, url: url.pathname, status: reply.status, type }
    if (type === 'application/json') checkText(described, await reply.clone().text())
    if (type !== 'text/event-stream' || !reply.body) return reply
    const { status, headers } = reply
    return new Response(reply.body.pipeThrough(checkFrames(described)), { status, headers })
  }

function checkFrames(reply: Reply): TransformStream<Uint8Array, Uint8Array> {
  const decoder = new TextDecoder()
  let rest = ''
  return new TransformStream({
    transform(chunk, controller) {
      rest += decoder.decode(chunk, { stream: true })
      const frames = rest.split('\n\n')
      rest = frames.pop() ?? ''
      for (const frame of frames) checkFrame(reply, frame)
      controller.enqueue(chunk)
    },
  })
}

function checkText(reply: Reply, text: string): void {
  if (reply.type === 'application/json') checkReply(reply, JSON.parse(text))
  if (reply.type === 'text/event-stream')
    for (const frame of text.split('\n\n')) checkFrame(reply, frame)
}

function checkFrame(reply: Reply, frame: string): void {
  const data = /^data: (.*)$/m.exec(frame)?.[1]
  if (data === undefined || data === '[DONE]') return
  const event = JSON.parse(data) as object
  checkReply('error' in event ? { ...reply, status: 500 } : reply, event)
}
