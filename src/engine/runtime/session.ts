// The only file that imports onnxruntime-node: sessions over encoded graphs, host tensors in and out.

import * as ort from 'onnxruntime-node'
import { EXTERNAL_ROOT } from '../graph/onnx.ts'
import type { Dtype, HostTensor } from '../tensor.ts'
import type { DeviceKind } from './device.ts'

/** Of onnxruntime. */
export const RUNTIME_VERSION: string = ort.env.versions.node ?? ort.env.versions.common

export interface SessionOptions {
  threads: number
  /** Absent: cpu. */
  device?: DeviceKind | undefined
  /**
   * Whether constant weights are laid out anew for their products, which copies them. Absent: they stay in their mapped
   * file, which others share.
   */
  prepack?: boolean | undefined
}

export type Feeds = Readonly<Record<string, HostTensor>>

/** A graph, ready to run. Dispose it to give its memory back. */
export interface Session extends AsyncDisposable {
  /**
   * Runs the graph. An output named in `into` is written to that tensor's own memory, which may also be an input's
   * where an operator works in place. Blocks the calling thread.
   */
  run(feeds: Feeds, into?: Feeds): Promise<Record<string, HostTensor>>
}

/** Types that ORT and we spell alike; the two raw 16-bit ones cross as their bits. */
const ortType = (dtype: Dtype): ort.Tensor.Type => {
  if (dtype === 'bfloat16') throw new Error('bfloat16 tensors do not cross into a session')
  return dtype
}

/**
 * Creates a session from ONNX bytes. Weights stay in their mapped file where nobody asks for prepacking, which would
 * copy them (load 1090 → 66 MB of memory for a model of 540 MB); the memory pattern is off (a third less at the peak).
 */
export async function createSession(
  onnx: Uint8Array,
  { threads, device = 'cpu', prepack = false }: SessionOptions,
): Promise<Session> {
  const session = await ort.InferenceSession.create(onnx, {
    executionProviders: [device],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    graphOptimizationLevel: 'all',
    enableMemPattern: false,
    logSeverityLevel: 3,
    extra: {
      session: {
        disable_prepacking: prepack ? '0' : '1',
        // Weights of one graph may lie in several folders, and must all lie below this one.
        model_external_initializers_file_folder_path: EXTERNAL_ROOT,
      },
    },
  })
  return {
    async run(feeds, into = {}) {
      const fetches: Record<string, ort.Tensor | null> = {}
      for (const name of session.outputNames) fetches[name] = into[name] ? toOrt(into[name]) : null
      const inputs: Record<string, ort.Tensor> = {}
      for (const [name, tensor] of Object.entries(feeds)) inputs[name] = toOrt(tensor)
      const results = await session.run(inputs, fetches)
      const outputs: Record<string, HostTensor> = {}
      for (const name of session.outputNames) outputs[name] = fromOrt(results[name]!)
      return outputs
    },
    async [Symbol.asyncDispose]() {
      await session.release()
    },
  }
}

/** Of tensors that are fed again and again: to make one takes longer than to look it up. */
const known = new WeakMap<HostTensor, ort.Tensor>()

function toOrt(tensor: HostTensor): ort.Tensor {
  const made = known.get(tensor)
  if (made) return made
  const { dtype, dims, data } = tensor
  const fresh = new ort.Tensor(ortType(dtype), data as ort.Tensor.DataType, dims)
  known.set(tensor, fresh)
  return fresh
}

function fromOrt(tensor: ort.Tensor): HostTensor {
  return { dtype: tensor.type as Dtype, dims: tensor.dims, data: tensor.data } as HostTensor
}
