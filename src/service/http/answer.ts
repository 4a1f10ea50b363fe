// From a generation request to its reply, whole or streamed: what chat and plain completions do alike.

import { createHash, randomBytes, randomInt } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { InferEvent } from '../../engine/infer/request.ts'
import { ApiError } from '../../errors.ts'
import type { ChatCompletions } from '../answers/chat-completions.ts'
import type { Responses } from '../answers/responses.ts'
import { newId } from '../ids.ts'
import type { Models, ResolvedModel } from '../models/model.ts'
import { generateAll } from '../scheduler/generations.ts'
import type { Answering, Generation } from '../scheduler/serving.ts'
import { type Deadline, deadlineIn } from './deadline.ts'
import type { RateLimits } from './rate-limits.ts'
import type { AnswerHead } from './schemas/generation.ts'
import { type Framing, streamEvents } from './sse.ts'

/** What the inference routes need. */
export interface Inference {
  models: Models
  serving: Answering
  limits: RateLimits
  responses: Responses
  completions: ChatCompletions
  /** Milliseconds that a request may take; absent: as long as it does. */
  request_ms?: number
  /** The tuned classifier that answers /moderations; absent: only one that the client names does. */
  moderation_model?: string | undefined
}

export interface Work {
  /** The model's name as the client sent it. */
  model: string
  /** `chatcmpl-` or `cmpl-`. */
  prefix: string
  generations: Generation[]
  stream: boolean
  /** What the client calls the engine's parameters, for errors about them. */
  params: Readonly<Record<string, string>>
  /** Asked where the prompt does not fit: what to try instead, or nothing. */
  shorter?(generations: readonly Generation[]): Generation[] | undefined
  /** How events look on the wire; absent: as chat's chunks. */
  framing?: Framing
}

/** Up to 32 characters that hide how long a chunk is. */
export const randomPad = (): string => randomBytes(24).toString('base64url').slice(randomInt(32))

export interface Present<Whole> {
  whole(head: AnswerHead, events: AsyncIterable<InferEvent>): Promise<Whole>
  chunks(head: AnswerHead, events: AsyncIterable<InferEvent>): AsyncIterable<object>
}

/** A seed for a request that has none; 48 bits, so that it is exact in JSON. */
export const randomSeed = (): number => randomBytes(6).readUIntBE(0, 6)

/** Names the fields that did nothing: `x-luthier-ignored: store, thinking`. */
export function tellIgnored(reply: FastifyReply, fields: readonly string[]): void {
  if (fields.length === 0) return
  // A header has no room for all that a key may be; through bytes, half a surrogate pair becomes U+FFFD.
  const names = fields
    .slice(0, 20)
    .map((name) => encodeURIComponent(Buffer.from(name.slice(0, 64)).toString()))
  reply.header('x-luthier-ignored', names.join(', '))
}

/** Answers whole, or by server-sent events. A client that goes away ends the work. */
export async function answer<Whole>(
  { models, serving, limits, request_ms }: Inference,
  request: FastifyRequest,
  reply: FastifyReply,
  work: Work,
  present: Present<Whole>,
): Promise<Whole | FastifyReply> {
  const model = await models.resolve(request.caller.project_id, work.model)
  const head = answerHead(work.prefix, model)
  const { key_id } = request.caller
  const { headers, took } = limits.take(key_id, estimate(work.generations), Date.now())
  reply.headers(headers)
  const settle = (used: number) => limits.settle(key_id, { took, used }, Date.now())
  const events = async (signal: AbortSignal) => {
    const deadline = deadlineIn(request_ms)
    const both = AbortSignal.any([signal, deadline.signal])
    try {
      const all = await fitting(work, (asked) => generateAll(serving, model, asked, both))
      return metered(inTime(all, deadline), settle)
    } catch (error) {
      deadline[Symbol.dispose]()
      settle(0)
      deadline.check()
      throw renamed(error, work.params)
    }
  }

  if (work.stream)
    return streamEvents(
      request,
      reply,
      async function* (signal) {
        yield* present.chunks(head, await events(signal))
      },
      work.framing && { framing: work.framing },
    )
  const gone = clientGone(reply)
  try {
    return await present.whole(head, await events(gone))
  } catch (error) {
    if (gone.aborted) return reply.hijack()
    throw error
  }
}

/** Tokens that a request may come to; about four letters make one. */
const estimate = (generations: readonly Generation[]): number =>
  generations.reduce((sum, { prompt, n, max_tokens }) => {
    const length = 'tokens' in prompt ? prompt.tokens.length : JSON.stringify(prompt).length / 4
    return sum + Math.ceil(length) + n * (max_tokens ?? 0)
  }, 0)

/** Passes events on until the deadline, at which they end early, and says so. */
async function* inTime(
  events: AsyncIterable<InferEvent>,
  deadline: Deadline,
): AsyncGenerator<InferEvent, void, undefined> {
  using _ = deadline
  for await (const event of events) yield event
  deadline.check()
}

/** Passes events on; at their end, whatever ends them, tells how many tokens there were. */
async function* metered(
  events: AsyncIterable<InferEvent>,
  settle: (used: number) => void,
): AsyncGenerator<InferEvent, void, undefined> {
  let used = 0
  // Of choices that were cut off nobody says how long they were: at least what was told of them.
  const told = new Map<number, number>()
  try {
    for await (const event of events) {
      if (event.type === 'prompt') used += event.prompt_tokens
      if (event.type === 'delta') told.set(event.index, (told.get(event.index) ?? 0) + 1)
      if (event.type === 'finish') told.set(event.index, event.completion_tokens)
      yield event
    }
  } finally {
    for (const tokens of told.values()) used += tokens
    settle(used)
  }
}

const answerHead = (prefix: string, model: ResolvedModel): AnswerHead => ({
  id: newId(prefix),
  created: Math.floor(Date.now() / 1000),
  model: model.id,
  system_fingerprint: fingerprint(model),
})

const fingerprint = ({ root, adapter }: ResolvedModel): string =>
  `fp_${createHash('sha256')
    .update(`${root}\n${adapter?.sha256 ?? ''}`)
    .digest('hex')
    .slice(0, 10)}`

/** Asks; where the prompt is too long and something shorter may do, asks for that. */
async function fitting<T>(
  { generations, shorter }: Work,
  ask: (generations: readonly Generation[]) => Promise<T>,
): Promise<T> {
  for (let asked = generations; ; ) {
    try {
      return await ask(asked)
    } catch (error) {
      const tooLong = error instanceof ApiError && error.code === 'context_length_exceeded'
      const instead = tooLong ? shorter?.(asked) : undefined
      if (!instead) throw error
      asked = instead
    }
  }
}

/** The engine has names of its own for `max_tokens` and `messages`; the client may have called them otherwise. */
function renamed(error: unknown, params: Readonly<Record<string, string>>): unknown {
  if (!(error instanceof ApiError) || error.param === null) return error
  const param = params[error.param]
  if (param === undefined || param === error.param) return error
  const { status, type, code, headers } = error
  // Only a name that is no word is changed in the text too.
  const message =
    error.param === 'max_tokens' ? error.message.replaceAll('max_tokens', param) : error.message
  return new ApiError(status, message, { type, param, code, headers })
}

/** Aborts when the connection closes, whether the answer was sent or the client went away. */
export function clientGone(reply: FastifyReply): AbortSignal {
  const gone = new AbortController()
  const leave = () => gone.abort(new Error('The client went away.'))
  reply.raw.once('close', leave)
  // Whoever left before we listened is gone too.
  if (reply.raw.destroyed) leave()
  return gone.signal
}
