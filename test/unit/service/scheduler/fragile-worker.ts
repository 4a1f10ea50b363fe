// A thread for serving.test.ts: says its target back, waits when told to, and dies when told to.

import type { InferEvent, InferThreadRequest } from '../../../../src/engine/infer/request.ts'
import { serve } from '../../../../src/engine/runtime/thread.ts'
import { invalidRequest } from '../../../../src/errors.ts'

async function* answer(
  request: InferThreadRequest,
  { signal }: { signal: AbortSignal },
): AsyncGenerator<InferEvent> {
  if (request.type !== 'generate') {
    yield { type: 'ready' }
    return
  }
  const text = 'text' in request.prompt ? request.prompt.text : ''
  yield { type: 'prompt', prompt_tokens: 1 }
  if (text === 'die') process.exit(3)
  if (text === 'mend') throw invalidRequest('too long', { param: 'prompt' })
  if (text === 'break') throw new Error('a bug')
  if (text === 'wait')
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
  yield { type: 'delta', index: 0, text: JSON.stringify(request.target) }
  yield { type: 'finish', index: 0, finish_reason: 'stop', completion_tokens: 1 }
}

serve(answer)
