// The command line in a process of its own, as an operator starts it.

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const LAUNCHER = fileURLToPath(new URL('../../bin/luthier.js', import.meta.url))

export interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs `luthier ARGS` with these settings to its end. */
export const luthier = (
  settings: Readonly<Record<string, string>>,
  ...args: string[]
): Promise<Ended> =>
  new Promise((done) => {
    const env = { ...process.env, ...settings }
    execFile(process.execPath, [LAUNCHER, ...args], { env }, (error, stdout, stderr) =>
      done({ code: error ? Number(error.code ?? 1) : 0, stdout, stderr }),
    )
  })
