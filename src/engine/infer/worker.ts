// The inference thread's entry: which requests go to the decoders, and which to the encoders.

import { availableParallelism } from 'node:os'
import { serve, threadData } from '../runtime/thread.ts'
import { Encoders } from './encoders.ts'
import { Generator } from './generate.ts'
import type { InferThreadData, InferThreadEvent, InferThreadRequest } from './request.ts'
import { isEncoder } from './resident-encoder.ts'

const {
  threads = availableParallelism(),
  precision,
  adapterBytes,
  speculate,
} = (threadData() ?? {}) as InferThreadData
const generator = new Generator({ threads, precision, adapterBytes, speculate })
const encoders = new Encoders(threads)

// Far ahead: a client that reads slowly must not hold up the others of its batch.
serve<InferThreadRequest, InferThreadEvent>(
  async function* (request, context) {
    switch (request.type) {
      case 'encode':
        yield { type: 'encoded', ...(await encoders.encode(request, context)) }
        return
      case 'load':
        if (!(await isEncoder(request.target))) break
        await encoders.load(request.target)
        yield { type: 'ready' }
        return
      case 'unload':
        await encoders.clear()
        break
      case 'forget':
        await encoders.forget(request.target)
        break
      case 'certify':
        yield {
          type: 'certified',
          verdict: await (request.evidence.texts ? encoders : generator).certify(
            request,
            context.turn,
          ),
        }
        return
      case 'inside':
        yield { type: 'inside', ...generator.inside }
        return
      case 'generate':
        break
      default:
        request satisfies never
    }
    yield* generator.handle(request, context)
  },
  { ahead: 1024 },
)
