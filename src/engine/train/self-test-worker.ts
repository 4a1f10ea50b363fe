// The self-test's thread: what goes wrong with a driver goes wrong there.

import type { DeviceKind } from '../runtime/device.ts'
import { serve } from '../runtime/thread.ts'
import { selfTest } from './self-test.ts'

serve<DeviceKind, number>(async function* (device) {
  yield await selfTest(device)
})
