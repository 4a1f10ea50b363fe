// GET /metrics, for Prometheus. It needs no key, for it tells nothing of any customer.

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Metrics } from '../../metrics/metrics.ts'

export interface MetricsDeps {
  readonly metrics: Metrics
}

export const metricsRoutes: FastifyPluginAsyncTypebox<MetricsDeps> = async (app, { metrics }) => {
  app.get('/metrics', { logLevel: 'warn', schema: { hide: true } }, async (_request, reply) => {
    const { content_type, text } = await metrics.page()
    return reply.type(content_type).send(text)
  })
}

/** Counts every request by the pattern of its route. */
export const countRequests = (app: Parameters<typeof metricsRoutes>[0], metrics: Metrics): void => {
  app.addHook('onResponse', async ({ method, routeOptions }, reply) => {
    metrics.answered({
      method,
      route: routeOptions.url ?? 'none',
      status: reply.statusCode,
      seconds: reply.elapsedTime / 1000,
    })
  })
}
