// A thread's entry: one module of an adapter a request.

import { serve } from '../runtime/thread.ts'
import { type AdapterModule, type MadePair, makePair } from './adapter-pair.ts'

serve<AdapterModule, MadePair>(async function* (work) {
  yield await makePair(work)
})
