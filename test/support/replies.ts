// Holds replies against our description of the API, and OpenAI's: a fetch that fails the test where they differ.

import { Ajv2020 } from 'ajv/dist/2020.js'
import type { FastifyInstance } from 'fastify'
import { specFetch } from './openai-spec.ts'

type Operations = Record<string, { responses: Record<string, { content?: object }> }>

/** For `new OpenAI({ fetch })`, or by itself. */
export const checkedFetch = (app: FastifyInstance): typeof fetch => {
  const document = app.swagger() as unknown as { paths: Record<string, Operations> }
  const ajv = new Ajv2020({ strict: false, validateFormats: false })
  ajv.addSchema(document, 'api')
  const escapeStep = (step: string) =>
    encodeURIComponent(step.replaceAll('~', '~0').replaceAll('/', '~1'))

  const describedAt = (path: string): string | undefined =>
    Object.keys(document.paths).find((template) =>
      new RegExp(`^${template.replace(/\{\w+\}/g, '[^/]+')}$`).test(path),
    )

  return async (input, init) => {
    const reply = await specFetch()(input, init)
    const url = new URL(input instanceof Request ? input.url : input)
    const method = (init?.method ?? 'GET').toLowerCase()
    const template = describedAt(url.pathname)
    const isJson = /^application\/json(;|$)/.test(reply.headers.get('content-type') ?? '')
    if (!template || !isJson) return reply
    const responses = document.paths[template]?.[method]?.responses ?? {}
    const status = [String(reply.status), `${String(reply.status)[0]}XX`].find(
      (s) => s in responses,
    )
    if (!status) throw new Error(`${method} ${template} does not describe a ${reply.status}.`)
    const pointer = [
      'paths',
      template,
      method,
      'responses',
      status,
      'content',
      'application/json',
      'schema',
    ]
    const check = ajv.getSchema(`api#/${pointer.map(escapeStep).join('/')}`)
    if (!check) throw new Error(`${method} ${template} ${status} is described without a schema.`)
    if (!check(await reply.clone().json()))
      throw new Error(`${method} ${template} ${status}: ${ajv.errorsText(check.errors)}`)
    return reply
  }
}
