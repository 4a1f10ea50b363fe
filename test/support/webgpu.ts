// The software device for WebGPU: SwiftShader, which comes with Chromium. CI fetches it; others may name a folder.

import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { installed } from './shared.ts'

/** A folder with a loader and a driver of Vulkan. */
export const driver = installed(
  'LUTHIER_WEBGPU_DRIVER',
  "a folder with libvulkan.so.1, libvk_swiftshader.so and vk_swiftshader_icd.json, which Debian's chromium-common has",
)

/** What a process must start with to find them. */
export const withDriver: Readonly<Record<string, string>> = {
  LD_LIBRARY_PATH: driver.path,
  VK_ICD_FILENAMES: join(driver.path, 'vk_swiftshader_icd.json'),
}

const ROOT = fileURLToPath(new URL('../../', import.meta.url))

/** How far gradients are from the processor's, by what was computed. */
export const gradientErrors = (...args: string[]) =>
  answerOf<Record<string, number>>('test/support/device-gradients.ts', ...args)

/** What `precision: auto` comes to, and the steps that were trained with it. */
export const halfTrial = (device: string) =>
  answerOf<{ precision: string; reason: string; steps: number }>(
    'test/support/half-trial.ts',
    device,
  )

/** The JSON that a script prints at last, in a process that finds the driver. */
const answerOf = <Answer>(path: string, ...args: string[]): Promise<Answer> =>
  new Promise((done, fail) => {
    const script = ['--import', 'tsx', path, ...args]
    const env = { ...process.env, ...withDriver }
    execFile(process.execPath, script, { cwd: ROOT, env }, (error, stdout) =>
      error ? fail(error) : done(JSON.parse(stdout.trimEnd().split('\n').at(-1)!)),
    )
  })
