// The training thread's entry.

import { serve } from '../runtime/thread.ts'
import { train } from './loop.ts'
import { gatherEvidence } from './parity.ts'
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
    case 'evidence':
      yield { type: 'evidence', ...(await gatherEvidence(request, context.turn)) }
      break
    default:
      request satisfies never
  }
})
