// The kinds of devices that a session may run on.

export const DEVICES = ['cpu', 'webgpu', 'cuda'] as const

export type DeviceKind = (typeof DEVICES)[number]

/** One device: of which kind, and how many of this machine's threads compute with it. */
export interface Compute {
  readonly device: DeviceKind
  readonly threads: number
}
