// luthier devices: what this machine can compute with, each tried out.

import { Command } from 'commander'
import { readConfig } from '../config.ts'
import { capabilitiesOf, DEVICES } from '../engine/runtime/device.ts'
import { checkDevice } from '../engine/train/check-device.ts'

export const devicesCommand = () =>
  new Command('devices')
    .description('try out every kind of device on this machine')
    .action(async () => {
      const { devices } = readConfig(process.env)
      for (const device of DEVICES)
        try {
          const error = await checkDevice(device)
          console.log(
            capabilitiesOf(device).tested
              ? `${device}\tusable: a training step differs from the processor's by ${error.toExponential(1)}`
              : `${device}\tusable: ${devices.threads} threads`,
          )
        } catch (error) {
          console.log(`${device}\t${error instanceof Error ? error.message : error}`)
        }
    })
