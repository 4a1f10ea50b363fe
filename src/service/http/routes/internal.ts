// /internal: what API processes ask of a worker. Whoever asks shows the token that the worker registered.

import { createHash, timingSafeEqual } from 'node:crypto'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { ApiError } from '../../../errors.ts'
import type { Models } from '../../models/model.ts'
import {
  ENCODE_PATH,
  GENERATE_PATH,
  type RelayedEncoding,
  type RelayedGeneration,
  type RelayedLine,
} from '../../scheduler/relayed-serving.ts'
import type { Answering } from '../../scheduler/serving.ts'
import { logError, toApiError } from '../errors.ts'
import { writeWhole } from '../sse.ts'

export interface InternalDeps {
  readonly token: string
  readonly models: Pick<Models, 'resolve'>
  readonly serving: Answering
}

/** More than the API takes: the request is wrapped. */
const BODY_LIMIT = 32 * 1024 * 1024
const ALIVE_MS = 5000

export const internalRoutes: FastifyPluginAsyncTypebox<InternalDeps> = async (app, deps) => {
  const { models, serving } = deps
  app.addHook('onRequest', async ({ headers }) => {
    if (!isSame(headers.authorization ?? '', `Bearer ${deps.token}`))
      throw new ApiError(401, 'This is not the token of this worker.', { code: 'invalid_token' })
  })

  /** Answers by lines, with a sign of life in between. */
  const answerLines = async <Event>(
    request: FastifyRequest,
    reply: FastifyReply,
    events: (signal: AbortSignal) => AsyncIterable<Event>,
  ): Promise<void> => {
    const { raw } = reply.hijack()
    const gone = new AbortController()
    raw.once('close', () => gone.abort(new Error('The asking process went away.')))
    raw.writeHead(200, { 'content-type': 'application/x-ndjson; charset=utf-8' })
    raw.flushHeaders()
    const write = (line: RelayedLine<Event>) => writeWhole(raw, `${JSON.stringify(line)}\n`)
    const alive = setInterval(() => raw.write('\n'), ALIVE_MS)
    try {
      for await (const event of events(gone.signal)) await write({ event })
      await write({ end: true })
    } catch (error) {
      if (gone.signal.aborted) return
      const told = toApiError(error)
      logError(error, told, request)
      const { status, message, type, param, code, headers } = told
      await write({ error: { status, message, type, param, code, headers } })
    } finally {
      clearInterval(alive)
      raw.end()
    }
  }
  const options = { bodyLimit: BODY_LIMIT, schema: { hide: true } }

  app.post(GENERATE_PATH, options, (request, reply) =>
    answerLines(request, reply, async function* (signal) {
      const { project_id, model, generation } = request.body as RelayedGeneration
      yield* serving.generate(await models.resolve(project_id, model), generation, signal)
    }),
  )

  app.post(ENCODE_PATH, options, (request, reply) =>
    answerLines(request, reply, async function* (signal) {
      const { project_id, model, encoding } = request.body as RelayedEncoding
      yield await serving.encode(await models.resolve(project_id, model), encoding, signal)
    }),
  )
}

const isSame = (a: string, b: string): boolean => timingSafeEqual(digest(a), digest(b))
const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
