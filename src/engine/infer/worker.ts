// The inference thread's entry.

import { availableParallelism } from 'node:os'
import { serve } from '../runtime/thread.ts'
import { Generator } from './generate.ts'
import type { InferEvent, InferThreadRequest } from './request.ts'

const generator = new Generator(availableParallelism())

// Far ahead: a client that reads slowly must not hold up the others of its batch.
serve<InferThreadRequest, InferEvent>((request, context) => generator.handle(request, context), {
  ahead: 1024,
})
