// Training state as bytes: a line of JSON, then the adapter and both moments as they lie in memory.

import type { LossScale } from './loss-scale.ts'
import { createMoments } from './optimizer.ts'
import type { StepMetrics } from './request.ts'
import type { TrainState } from './trainer.ts'

/** What a resume needs besides the request: the numbers of the last step and the vectors after it. */
export interface SavedState {
  readonly state: TrainState
  readonly trained_tokens: number
  /** The last step was stopped while it was being validated: a resume validates it anew. */
  readonly unvalidated?: StepMetrics | undefined
  /** What every epoch so far came to on the validation rows. */
  readonly valid_losses?: readonly number[]
}

interface Header {
  version: 1
  step: number
  trained_tokens: number
  parameters: number
  unvalidated?: StepMetrics | undefined
  valid_losses?: readonly number[]
  loss_scale?: LossScale
}

/** The same state gives the same bytes. */
export function encodeState(saved: SavedState): Uint8Array {
  const { state, ...rest } = saved
  const { step, adapter, moments, loss_scale } = state
  const parameters = adapter.length
  const header: Header = {
    version: 1,
    step,
    parameters,
    ...(loss_scale && { loss_scale }),
    ...rest,
  }
  const line = new TextEncoder().encode(JSON.stringify(header).padEnd(127))
  const vectors = [adapter, moments.first, moments.second]
  const bytes = new Uint8Array(line.length + 1 + vectors.length * adapter.byteLength)
  bytes.set(line)
  bytes[line.length] = 10
  for (const [i, v] of vectors.entries())
    bytes.set(
      new Uint8Array(v.buffer, v.byteOffset, v.byteLength),
      line.length + 1 + i * v.byteLength,
    )
  return bytes
}

/** Throws where the bytes are no state of an adapter with so many parameters. */
export function decodeState(bytes: Uint8Array, parameters: number): SavedState {
  const end = bytes.indexOf(10)
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end))) as Header
  if (header.version !== 1) throw new Error(`training state: version ${header.version} is unknown`)
  if (header.parameters !== parameters || bytes.length !== end + 1 + 12 * parameters)
    throw new Error(
      `training state: ${header.parameters} parameters in ${bytes.length} bytes, expected ${parameters}`,
    )
  const vector = (i: number, into: Float32Array): Float32Array => {
    const from = end + 1 + i * into.byteLength
    new Uint8Array(into.buffer).set(bytes.subarray(from, from + into.byteLength))
    return into
  }
  const adapter = vector(0, new Float32Array(parameters))
  const moments = createMoments(parameters)
  vector(1, moments.first)
  vector(2, moments.second)
  return {
    state: {
      step: header.step,
      adapter,
      moments,
      ...(header.loss_scale && { loss_scale: header.loss_scale }),
    },
    trained_tokens: header.trained_tokens,
    unvalidated: header.unvalidated,
    // JSON has no NaN.
    valid_losses: (header.valid_losses ?? []).map((loss) => loss ?? Number.NaN),
  }
}
