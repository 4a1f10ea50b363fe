// A merging thread's entry: one tensor a request.

import { serve } from '../runtime/thread.ts'
import { type MergeTensorRequest, mergeTensor } from './tensor.ts'

// biome-ignore lint/correctness/useYield: a tensor has nothing to tell but its end
serve<MergeTensorRequest, never>(async function* (request) {
  await mergeTensor(request)
})
