// Whether a kind of device may be used on this machine, said in words.

import { capabilitiesOf, type DeviceKind } from '../runtime/device.ts'
import { spawn } from '../runtime/thread.ts'

const ENTRY = new URL('./self-test-worker.ts', import.meta.url)

/** A device that is further from the processor than this computes something else. */
const MOST_ERROR = 1e-3

/** The self-test's largest relative difference to the processor. Throws what is wrong, and what would help. */
export async function checkDevice(device: DeviceKind): Promise<number> {
  const { tested, needs } = capabilitiesOf(device)
  if (!tested) return 0
  const error = await tryOut(device).catch((cause: unknown) => {
    throw new Error(
      `The device ${device} cannot be used (${reasonOf(cause)}). It needs ${needs}.`,
      {
        cause,
      },
    )
  })
  if (error <= MOST_ERROR) return error
  throw new Error(
    `The device ${device} is not used, for it fails its self-test: a training step on it differs from the processor's by ${error.toExponential(1)}, and may by ${MOST_ERROR}.`,
  )
}

/** One line, without where in its sources the runtime says it. */
function reasonOf(cause: unknown): string {
  const [line = ''] = String(cause instanceof Error ? cause.message : cause).split('\n')
  return line.replace(/^\/\S+\.cc:\d+ .* was false\. /, '')
}

async function tryOut(device: DeviceKind): Promise<number> {
  await using thread = spawn<DeviceKind, number>(ENTRY)
  for await (const error of thread.run(device)) return error
  throw new Error('The self-test ended without a result.')
}
