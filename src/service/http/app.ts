// buildApp(deps): the API's table of contents, and what all its routes share.

import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  fastify,
  LogController,
  type RouteOptions,
} from 'fastify'
import { Type } from 'typebox'
import { ApiError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import type { Db } from '../db/pool.ts'
import type { Files } from '../files/files.ts'
import type { Uploads } from '../files/uploads.ts'
import type { Metrics } from '../metrics/metrics.ts'
import type { AnswerRequest } from '../scheduler/run-batch.ts'
import type { Inference } from './answer.ts'
import { answersBy, behindOthers } from './answers.ts'
import { requireKey } from './auth.ts'
import { ErrorBody, errorBody, handleErrors, sendError } from './errors.ts'
import { type BatchDeps, batchRoutes } from './routes/batches.ts'
import { chatRoutes } from './routes/chat.ts'
import { type ComparisonDeps, comparisonRoutes } from './routes/comparisons.ts'
import { completionRoutes } from './routes/completions.ts'
import { encoderRoutes } from './routes/encoders.ts'
import { type EvalsDeps, evalRoutes } from './routes/evals.ts'
import { type ExampleDeps, exampleRoutes } from './routes/examples.ts'
import { filesRoutes } from './routes/files.ts'
import { type FineTuningDeps, fineTuningRoutes } from './routes/fine-tuning.ts'
import { type GraderDeps, graderRoutes } from './routes/graders.ts'
import { type HealthDeps, healthRoutes } from './routes/health.ts'
import { type ImportDeps, importRoutes } from './routes/imports.ts'
import { type InternalDeps, internalRoutes } from './routes/internal.ts'
import { type MergeDeps, mergeRoutes } from './routes/merges.ts'
import { countRequests, metricsRoutes } from './routes/metrics.ts'
import { type ModelsDeps, modelRoutes } from './routes/models.ts'
import { moderationRoutes } from './routes/moderations.ts'
import { type PreflightRoutesDeps, preflightRoutes } from './routes/preflight.ts'
import { type ProvenanceDeps, provenanceRoutes } from './routes/provenance.ts'
import { responseRoutes } from './routes/responses.ts'
import { storedChatRoutes } from './routes/stored-chat.ts'
import { type SweepDeps, sweepRoutes } from './routes/sweeps.ts'
import { uploadRoutes } from './routes/uploads.ts'
import { validatorCompiler } from './validation.ts'

/** What the routes need; each part is handed on to its own routes as plugin options. */
export interface AppDeps {
  readonly log: Logger
  readonly db: Db
  readonly health: HealthDeps
  readonly files: Files
  readonly uploads: Uploads
  readonly inference: Inference
  readonly fineTuning: FineTuningDeps
  readonly preflights: PreflightRoutesDeps
  readonly examples: ExampleDeps
  readonly sweeps: SweepDeps
  readonly merges: MergeDeps
  readonly batches: BatchDeps
  readonly imports: ImportDeps
  readonly graders: GraderDeps
  readonly evals: EvalsDeps
  readonly comparisons: ComparisonDeps
  readonly models: ModelsDeps
  readonly provenance: ProvenanceDeps
  readonly metrics: Metrics
}

/** Large enough for long chats; files have a limit of their own. */
const BODY_LIMIT = 16 * 1024 * 1024

/** Builds the server; `listen` or `inject` is up to the caller. */
export const buildApp = async (deps: AppDeps): Promise<FastifyInstance> => {
  const app = newApp(deps)
  await describeApi(app)

  await app.register(healthRoutes, deps.health)
  await app.register(metricsRoutes, { metrics: deps.metrics })

  await app.register(
    async (api) => {
      requireKey(api, deps.db)
      // The API, resource by resource: one line each, with what its routes need.
      await api.register(filesRoutes, { files: deps.files })
      await api.register(uploadRoutes, { uploads: deps.uploads })
      await api.register(fineTuningRoutes, deps.fineTuning)
      await api.register(preflightRoutes, deps.preflights)
      await api.register(exampleRoutes, deps.examples)
      await api.register(sweepRoutes, deps.sweeps)
      await api.register(mergeRoutes, deps.merges)
      await api.register(importRoutes, deps.imports)
      await api.register(graderRoutes, deps.graders)
      await api.register(evalRoutes, deps.evals)
      await api.register(comparisonRoutes, deps.comparisons)
      await api.register(modelRoutes, deps.models)
      await api.register(provenanceRoutes, deps.provenance)
      await api.register(batchRoutes, deps.batches)
      await registerInference(api, deps.inference)
      await api.register(storedChatRoutes, deps.inference)
    },
    { prefix: '/v1' },
  )
  return app
}

/** What models answer: over HTTP, and line by line in batches. */
const registerInference = async (api: FastifyInstance, inference: Inference): Promise<void> => {
  await api.register(chatRoutes, inference)
  await api.register(completionRoutes, inference)
  await api.register(responseRoutes, inference)
  await api.register(encoderRoutes, inference)
  await api.register(moderationRoutes, inference)
}

/** Answers requests of batches by the routes themselves, in this process. */
export const buildAnswers = async (
  deps: Pick<AppDeps, 'log' | 'metrics'> & { readonly inference: Omit<Inference, 'limits'> },
): Promise<AsyncDisposable & { readonly answer: AnswerRequest }> => {
  // A line of the log for each line of a batch would be too much.
  const app = newApp({ ...deps, log: deps.log.child({}, { level: 'warn' }) })
  const answer = answersBy(app)
  await app.register(async (api) => registerInference(api, behindOthers(deps.inference)), {
    prefix: '/v1',
  })
  await app.ready()
  return { answer, [Symbol.asyncDispose]: () => app.close() }
}

/** The server of a process that computes for others: no API, only what API processes ask. */
export const buildWorkerApp = async (
  deps: Pick<AppDeps, 'log' | 'health' | 'metrics'> & { readonly internal: InternalDeps },
): Promise<FastifyInstance> => {
  const app = newApp(deps)
  await app.register(healthRoutes, deps.health)
  await app.register(metricsRoutes, { metrics: deps.metrics })
  await app.register(internalRoutes, deps.internal)
  return app
}

/** What every server here has in common. */
const newApp = ({ log, metrics }: Pick<AppDeps, 'log' | 'metrics'>): FastifyInstance => {
  const app = fastify({
    loggerInstance: log as FastifyBaseLogger,
    // One line a request, written when it is answered (see logRequests).
    logController: new LogController({
      disableRequestLogging: true,
      requestIdLogLabel: 'request_id',
    }),
    bodyLimit: BODY_LIMIT,
    genReqId: newRequestId,
    // Model names hold `/` and `:`; the router decodes them as one segment.
    routerOptions: { maxParamLength: 512 },
    // What still comes while we drain is answered as long as its connection lives.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    clientErrorHandler: refuseBrokenHttp,
    // A URL that cannot be read comes before all hooks.
    frameworkErrors: (error, request, reply) => {
      reply.header('x-request-id', request.id)
      sendError(error, request as FastifyRequest, reply as unknown as FastifyReply)
    },
  }).withTypeProvider<TypeBoxTypeProvider>()

  setCompilers(app)
  // An instance that adds schemas of its own would fall back to Fastify's compilers.
  app.addHook('onRegister', setCompilers)
  acceptEmptyJson(app)
  setCommonHeaders(app)
  closeUnusedConnections(app)
  logRequests(app)
  countRequests(app, metrics)
  handleErrors(app)
  return app
}

const newRequestId = (): string => `req_${randomUUID().replaceAll('-', '')}`

/** What is no HTTP at all is answered by hand: there is no request yet. */
const refuseBrokenHttp = (error: NodeJS.ErrnoException, socket: Socket): void => {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
  const [status, reason] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? [431, 'Request Header Fields Too Large']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? [408, 'Request Timeout']
        : [400, 'Bad Request']
  const body = JSON.stringify(errorBody(new ApiError(status, `${reason}.`)))
  socket.end(
    `HTTP/1.1 ${status} ${reason}\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: ${body.length}\r\nx-request-id: ${newRequestId()}\r\nconnection: close\r\n\r\n${body}`,
  )
}

const setCompilers = (app: FastifyInstance): void => {
  app.setValidatorCompiler(validatorCompiler)
  // A reply is what present() made; the schemas of replies describe, and tests hold them to it.
  app.setSerializerCompiler(() => (data) => JSON.stringify(data))
}

/** Clients send `content-type: application/json` with nothing behind it (`POST …/cancel`). */
const acceptEmptyJson = (app: FastifyInstance): void => {
  const parse = app.getDefaultJsonParser('error', 'error')
  app.addContentTypeParser<string>(
    'application/json',
    { parseAs: 'string' },
    (request, body, done) => {
      if (body === '') done(null, undefined)
      else void parse(request, body, done)
    },
  )
}

/** Clients open connections ahead. Node takes one without a request for busy, and a stop would wait for it. */
const closeUnusedConnections = (app: FastifyInstance): void => {
  const unused = new Set<Socket>()
  app.server.on('connection', (socket: Socket) => {
    unused.add(socket)
    socket.once('close', () => unused.delete(socket))
  })
  app.server.on('request', ({ socket }: IncomingMessage) => unused.delete(socket))
  app.addHook('preClose', async () => {
    for (const socket of unused) socket.destroy()
  })
}

const setCommonHeaders = (app: FastifyInstance): void => {
  app.addHook('onRequest', async (request, reply) => {
    reply.headers({
      'x-request-id': request.id,
      'openai-version': '2020-10-01',
      'x-content-type-options': 'nosniff',
    })
  })
  app.addHook('onSend', async (_request, reply, payload) => {
    reply.header('openai-processing-ms', String(Math.round(reply.elapsedTime)))
    return payload
  })
}

const logRequests = (app: FastifyInstance): void => {
  app.addHook('onResponse', async (request, reply) => {
    const { method, routeOptions, headers } = request
    request.log.info(
      {
        method,
        // The route, not the URL: a query may hold what is nobody's business.
        route: routeOptions.url ?? null,
        status: reply.statusCode,
        ms: Math.round(reply.elapsedTime),
        client: headers['user-agent'],
        retry: headers['x-stainless-retry-count'],
      },
      'request',
    )
  })
}

const describeApi = async (app: FastifyInstance): Promise<void> => {
  app.addSchema(ErrorBody)
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Luthier',
        version: '0.1.0',
        description:
          'Trains, serves and owns fine-tuned language models behind the OpenAI fine-tuning API.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      servers: [{ url: '/', description: 'This server' }],
      components: { securitySchemes: { api_key: { type: 'http', scheme: 'bearer' } } },
    },
    refResolver: {
      buildLocalReference: (json, _base, _fragment, index) =>
        typeof json.$id === 'string' ? json.$id : `def-${index}`,
    },
  })
  app.addHook('onRoute', describeErrors)
  await app.register(swaggerUi, { routePrefix: '/docs', logLevel: 'warn' })
  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger())
  app.get('/', { schema: { hide: true } }, async (_request, reply) => reply.redirect('/docs'))
}

/** Every route under /v1 wants a key and fails in one shape. */
const describeErrors = (route: RouteOptions): void => {
  if (!route.url.startsWith('/v1/') || !route.schema) return
  route.schema.security ??= [{ api_key: [] }]
  route.schema.response = {
    ...(route.schema.response as object),
    '4xx': Type.Ref('Error#', { description: 'What the caller can mend.' }),
    '5xx': Type.Ref('Error#', { description: 'What the caller cannot mend.' }),
  }
}
