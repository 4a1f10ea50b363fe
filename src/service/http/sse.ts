// Server-sent events by hand: frames, back pressure, errors in mid-stream, a client that goes away.

import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { ApiError } from '../../errors.ts'
import { errorBody, logError, toApiError } from './errors.ts'

/** How objects become frames. */
export interface Framing {
  frame(event: object): string
  /** After the last; absent: nothing. */
  end?: string
  /** What fails in mid-stream, after so many frames. */
  failed(error: ApiError, frames: number): string
}

const dataFrame = (event: object) => `data: ${JSON.stringify(event)}\n\n`

/** Chat's and completions': data alone, `[DONE]` at last. */
const UNNAMED: Framing = {
  frame: dataFrame,
  end: 'data: [DONE]\n\n',
  failed: (error) => dataFrame(errorBody(error)),
}

const namedFrame = (event: object): string => {
  const name = 'type' in event ? event.type : 'message'
  return `event: ${name}\n${dataFrame(event)}`
}

/** Responses': each under the name of its type, an error too; the last event says by itself that it is the last. */
export const NAMED: Framing = {
  frame: namedFrame,
  failed: ({ type: kind, code, message, param }, sequence_number) =>
    namedFrame({ type: 'error', code: code ?? kind, message, param, sequence_number }),
}

/**
 * Answers with the objects of `open(signal)`, one frame each, and what ends them. What fails before the first object
 * is an ordinary error reply; later it is a frame with `error`. `signal` aborts when the client goes away.
 *
 *     app.post('/chat/completions', …, (request, reply) => streamEvents(request, reply, (signal) => chunks(signal)))
 */
export const streamEvents = async (
  request: FastifyRequest,
  reply: FastifyReply,
  open: (signal: AbortSignal) => AsyncIterable<object>,
  { framing = UNNAMED, stall_ms }: { framing?: Framing; stall_ms?: number } = {},
): Promise<FastifyReply> => {
  const raw = reply.raw
  const write = (text: string) => writeWhole(raw, text, stall_ms)
  const gone = new AbortController()
  const leave = () => {
    if (!raw.writableFinished) gone.abort(new Error('The client went away.'))
  }
  raw.on('close', leave)
  // Whoever left before we listened is gone too.
  if (raw.destroyed) leave()
  const events = open(gone.signal)[Symbol.asyncIterator]()
  let frames = 0
  try {
    let next = await events.next()
    if (gone.signal.aborted) return reply.hijack()
    writeHead(reply)
    for (; !next.done && !gone.signal.aborted; next = await events.next(), frames++)
      await write(framing.frame(next.value))
    if (framing.end !== undefined) await write(framing.end)
    raw.end()
  } catch (error) {
    if (!raw.headersSent && !gone.signal.aborted) throw error
    if (gone.signal.aborted) return reply.hijack()
    const told = toApiError(error)
    logError(error, told, request)
    await write(framing.failed(told, frames))
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

/** A client that has read nothing for as long is taken for lost: what waits for it is let go. */
const STALL_MS = 60_000

/** Waits where the client reads slower than we write, and no longer than it stays, or than `stall_ms`. */
export const writeWhole = async (
  raw: ServerResponse,
  text: string,
  stall_ms = STALL_MS,
): Promise<void> => {
  if (raw.destroyed || raw.write(text)) return
  const settled = new AbortController()
  const stalled = setTimeout(() => raw.destroy(), stall_ms)
  try {
    await Promise.race([
      once(raw, 'drain', { signal: settled.signal }),
      once(raw, 'close', { signal: settled.signal }),
    ])
  } finally {
    clearTimeout(stalled)
    settled.abort()
  }
}
