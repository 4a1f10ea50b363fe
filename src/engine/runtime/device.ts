// The table of devices: what each can do, and what must be done otherwise for it.

import type { Lowered } from '../graph/lower.ts'

export interface Capabilities {
  /** Operators without a kernel there: the graph is written without them. */
  readonly without: readonly Lowered[]
  /** What products with frozen weights may be computed in; the last is tried where it is for us to choose. */
  readonly precisions: readonly ('fp32' | 'int8' | 'fp16')[]
  /** It is used only after it has computed a training step as the processor does. */
  readonly tested: boolean
  /** What the machine must have, said where it cannot be used. */
  readonly needs?: string
}

/**
 * Tensors cross to a device and back at each run: the trained vector and a micro-batch go, loss and gradient come, frozen
 * weights stay there. Answers are computed by the processor, whatever trains beside it. By onnxruntime's names of its
 * execution providers.
 */
const table = {
  cpu: { without: [], precisions: ['fp32', 'int8'], tested: false },
  webgpu: {
    // The second output of SimplifiedLayerNormalization is wrong there.
    without: ['LogSoftmax', 'QuickGelu', 'FusedMatMul', 'SimplifiedLayerNormalization'],
    precisions: ['fp32', 'fp16'],
    tested: true,
    needs: 'a driver for Vulkan (libvulkan.so.1 and the one of the graphics card), Metal or D3D12',
  },
  cuda: {
    without: [],
    precisions: ['fp32', 'fp16'],
    tested: true,
    needs:
      "CUDA 12 and onnxruntime's libraries for it, which `node node_modules/onnxruntime-node/script/install --onnxruntime-node-install=cuda12` fetches",
  },
} as const satisfies Record<string, Capabilities>

export type DeviceKind = keyof typeof table

export const DEVICES = Object.keys(table) as DeviceKind[]

export const capabilitiesOf = (device: DeviceKind): Capabilities => table[device]

/** One device: of which kind, and how many of this machine's threads compute with it. */
export interface Compute {
  readonly device: DeviceKind
  readonly threads: number
}
