// What the thread of one device is asked, and what it answers. The trained vector and its gradient are shared memory.

import type { Compute } from '../runtime/device.ts'
import type { Feeds, Outputs } from './methods/method.ts'

/** A tensor in a flat float32 vector. */
export interface Place {
  readonly name: string
  readonly dims: readonly number[]
  readonly from: number
  readonly length: number
}

export interface SharedVector {
  readonly memory: SharedArrayBuffer
  readonly places: readonly Place[]
}

export interface OpenLaneRequest {
  readonly type: 'open'
  /** The graphs, as ONNX. */
  readonly train: Uint8Array
  readonly evaluate: Uint8Array
  /** Of `train`. */
  readonly prepack: boolean
  readonly compute: Compute
  readonly parameters: SharedVector
  readonly gradient: SharedVector
}

export type LaneRequest =
  | OpenLaneRequest
  | { readonly type: 'train' | 'evaluate'; readonly feeds: Feeds }

export interface LaneEvent {
  /** Without the gradient, which lies in the shared memory by then. */
  readonly outputs: Outputs
}
