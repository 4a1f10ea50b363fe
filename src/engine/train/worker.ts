// The training thread's entry.

import { serve } from '../runtime/thread.ts'
import { train } from './loop.ts'
import { preflight } from './preflight.ts'
import type { TrainEvent, TrainThreadRequest } from './request.ts'

serve<TrainThreadRequest, TrainEvent>(async function* (request, context) {
  switch (request.type) {
    case 'inspect':
      yield* preflight(request, context.turn)
      break
    case 'train':
      yield* train(request, context)
      break
    default:
      request satisfies never
  }
})
