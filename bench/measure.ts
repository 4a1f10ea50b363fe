// What a benchmark's process says about itself, and how one process is run apart from the others.

import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export interface Measured {
  name: string
  value: number
  unit: string
}

/** Peak resident memory of this process, mapped pages included, and what of it is anonymous now. */
export function memory(): Measured[] {
  const status = readFileSync('/proc/self/status', 'utf8')
  const megabytes = (field: string) =>
    Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1024
  return [
    { name: 'peak memory (VmHWM)', value: megabytes('VmHWM'), unit: 'MB' },
    { name: 'anonymous memory at the end (RssAnon)', value: megabytes('RssAnon'), unit: 'MB' },
  ]
}

/** Runs a benchmark in a process of its own, so that its memory is its own, and reads what it prints. */
export function measureApart(entry: string, args: string[]): Promise<Measured[]> {
  const path = fileURLToPath(new URL(entry, import.meta.url))
  return new Promise((done, fail) =>
    execFile(
      process.execPath,
      ['--import', 'tsx', path, ...args],
      { maxBuffer: 1 << 24 },
      (error, stdout, stderr) =>
        error ? fail(new Error(`${entry}: ${stderr}`, { cause: error })) : done(JSON.parse(stdout)),
    ),
  )
}
