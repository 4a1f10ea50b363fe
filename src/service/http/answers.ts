// The inference routes without a door: this process asks them itself, on behalf of a project, as a client would over
// HTTP. Nobody waits for the answers.

import { randomUUID } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { ApiError } from '../../errors.ts'
import type { AnswerRequest } from '../scheduler/run-batch.ts'
import type { Answering } from '../scheduler/serving.ts'
import type { Inference } from './answer.ts'
import { RateLimits } from './rate-limits.ts'

/** Limits are a key's, and a batch has none. */
const UNLIMITED = {
  requests_per_minute: Number.MAX_SAFE_INTEGER,
  tokens_per_minute: Number.MAX_SAFE_INTEGER,
}

const KEY = 'x-luthier-asked'

interface Asked {
  project_id: string
  signal: AbortSignal
}

/** The same models, asked behind all others. */
export const behindOthers = ({ serving, ...rest }: Omit<Inference, 'limits'>): Inference => ({
  ...rest,
  limits: new RateLimits(UNLIMITED),
  serving: {
    generate: (model, generation, signal) =>
      serving.generate(model, { ...generation, low_priority: true }, signal),
    encode: (model, encoding, signal) => serving.encode(model, encoding, signal),
  } satisfies Answering,
})

/** Asks an app that has the routes, listens nowhere and asks for no key. Call it before its routes are registered. */
export function answersBy(app: FastifyInstance): AnswerRequest {
  const asked = new Map<string, Asked>()
  app.decorateRequest('caller', null as never)
  app.addHook('onRequest', async (request, reply) => {
    const one = asked.get(String(request.headers[KEY]))
    if (!one) throw new ApiError(401, 'Nobody here has asked this.')
    const { project_id, signal } = one
    request.caller = {
      key_id: 'batch',
      project_id,
      project_archived: false,
      organization_id: '',
      organization_slug: '',
      scope: 'member',
    }
    // Whoever asked goes away as clients do.
    const leave = () => reply.raw.destroy()
    if (signal.aborted) leave()
    signal.addEventListener('abort', leave, { once: true })
    reply.raw.once('close', () => signal.removeEventListener('abort', leave))
  })
  return async ({ project_id, url, body }, signal) => {
    signal.throwIfAborted()
    const key = randomUUID()
    asked.set(key, { project_id, signal })
    try {
      const headers = { 'content-type': 'application/json', [KEY]: key }
      const payload = JSON.stringify(body)
      const reply = await app.inject({ method: 'POST', url, headers, payload })
      return {
        status_code: reply.statusCode,
        request_id: String(reply.headers['x-request-id']),
        body: reply.json(),
      }
    } finally {
      asked.delete(key)
    }
  }
}
