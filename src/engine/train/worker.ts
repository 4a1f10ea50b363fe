// The training thread's entry.

import { serve } from '../runtime/thread.ts'
import { inspect } from './inspect.ts'
import { train } from './loop.ts'
import type { TrainEvent, TrainThreadRequest } from './request.ts'

serve<TrainThreadRequest, TrainEvent>(async function* (request, context) {
  switch (request.type) {
    case 'inspect':
      yield await inspect(request)
      break
    case 'train':
      yield* train(request, context)
      break
    default:
      request satisfies never
  }
})
