// Server-sent events by hand: frames, back pressure, errors in mid-stream, a client that goes away.

import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { errorBody, logError, toApiError } from './errors.ts'

/**
 * Answers with the objects of `open(signal)`, one frame each, then `[DONE]`. What fails before the first object
 * is an ordinary error reply; later it is a frame with `error`. `signal` aborts when the client goes away.
 *
 *     app.post('/chat/completions', …, (request, reply) => streamEvents(request, reply, (signal) => chunks(signal)))
 */
export const streamEvents = async (
  request: FastifyRequest,
  reply: FastifyReply,
  open: (signal: AbortSignal) => AsyncIterable<object>,
): Promise<FastifyReply> => {
  const raw = reply.raw
  const gone = new AbortController()
  const leave = () => {
    if (!raw.writableFinished) gone.abort(new Error('The client went away.'))
  }
  raw.on('close', leave)
  // Whoever left before we listened is gone too.
  if (raw.destroyed) leave()
  const events = open(gone.signal)[Symbol.asyncIterator]()
  try {
    let next = await events.next()
    if (gone.signal.aborted) return reply.hijack()
    writeHead(reply)
    for (; !next.done && !gone.signal.aborted; next = await events.next())
      await writeFrame(raw, JSON.stringify(next.value))
    await writeFrame(raw, '[DONE]')
    raw.end()
  } catch (error) {
    if (!raw.headersSent && !gone.signal.aborted) throw error
    if (gone.signal.aborted) return reply.hijack()
    const told = toApiError(error)
    logError(error, told, request)
    await writeFrame(raw, JSON.stringify(errorBody(told)))
    raw.end()
  } finally {
    raw.off('close', leave)
    await events.return?.().catch((err: unknown) => request.log.warn({ err }, 'stream not closed'))
  }
  return reply
}

/** Fastify lets go of the reply; what its hooks had set is carried over. */
const writeHead = (reply: FastifyReply): void => {
  reply.hijack()
  reply.raw.writeHead(200, {
    ...(reply.getHeaders() as Record<string, string>),
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache, no-transform',
    'openai-processing-ms': String(Math.round(reply.elapsedTime)),
    // Proxies that buffer would turn a stream into one late answer.
    'x-accel-buffering': 'no',
  })
  reply.raw.flushHeaders()
}

/** Waits where the client reads slower than we write, and no longer than it stays. */
const writeFrame = (raw: ServerResponse, data: string): Promise<void> =>
  writeWhole(raw, `data: ${data}\n\n`)

/** The same for any text. */
export const writeWhole = async (raw: ServerResponse, text: string): Promise<void> => {
  if (raw.destroyed || raw.write(text)) return
  const settled = new AbortController()
  try {
    await Promise.race([
      once(raw, 'drain', { signal: settled.signal }),
      once(raw, 'close', { signal: settled.signal }),
    ])
  } finally {
    settled.abort()
  }
}
