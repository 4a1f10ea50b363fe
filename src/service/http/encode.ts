// From a request for vectors or labels to what an encoder answers: what the routes of encoders do alike.

import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Encodings } from '../../engine/infer/encode-request.ts'
import type { Encoding } from '../scheduler/serving.ts'
import { clientGone, type Inference } from './answer.ts'
import { deadlineIn } from './deadline.ts'

/** About four letters make a token. */
const estimate = ({ input }: Encoding): number =>
  input.reduce((n, item) => n + (typeof item === 'string' ? item.length / 4 : item.length), 0)

/** Asks an encoder for a client. Undefined where that went away meanwhile. */
export async function encode(
  { models, serving, limits, request_ms }: Inference,
  { caller }: FastifyRequest,
  reply: FastifyReply,
  name: string,
  encoding: Encoding,
): Promise<Encodings | undefined> {
  const model = await models.resolve(caller.project_id, name)
  const { headers, took } = limits.take(caller.key_id, Math.ceil(estimate(encoding)), Date.now())
  reply.headers(headers)
  const gone = clientGone(reply)
  using deadline = deadlineIn(request_ms)
  let used = 0
  try {
    const either = AbortSignal.any([gone, deadline.signal])
    const encodings = await serving.encode(model, encoding, either)
    used = encodings.prompt_tokens
    return encodings
  } catch (error) {
    if (gone.aborted) return undefined
    deadline.check()
    throw error
  } finally {
    limits.settle(caller.key_id, { took, used }, Date.now())
  }
}
