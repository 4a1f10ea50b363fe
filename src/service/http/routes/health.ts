// Whether the process lives, and whether it can be sent work.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'

export interface HealthDeps {
  /** Why the server cannot serve now, in words; undefined when it can. */
  readonly whyNotReady: () => Promise<string | undefined>
}

const Health = Type.Object({ status: Type.String(), reason: Type.Optional(Type.String()) })

export const healthRoutes: FastifyPluginAsyncTypebox<HealthDeps> = async (app, deps) => {
  const quiet = { logLevel: 'warn' as const }
  app.get(
    '/healthz',
    {
      ...quiet,
      schema: {
        operationId: 'healthz',
        tags: ['Health'],
        summary: 'The process lives',
        security: [],
        response: { 200: Health },
      },
    },
    async () => ({ status: 'ok' }),
  )
  app.get(
    '/readyz',
    {
      ...quiet,
      schema: {
        operationId: 'readyz',
        tags: ['Health'],
        summary: 'The server can be sent requests',
        security: [],
        response: { 200: Health, 503: Health },
      },
    },
    async (_request, reply) => {
      const reason = await deps.whyNotReady()
      if (reason === undefined) return { status: 'ready' }
      return reply.code(503).header('retry-after', '1').send({ status: 'not ready', reason })
    },
  )
}
