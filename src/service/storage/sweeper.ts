// Runs what tidies up, one after the other, now and again. Knows nothing of what is swept.

import type { Logger } from '../../log.ts'

export interface SweeperOptions {
  /** By name, for the log; one that fails does not keep the others from it. */
  readonly tasks: Readonly<Record<string, () => Promise<void>>>
  readonly every_ms: number
  readonly log: Logger
}

/** The first run begins at once. Disposing waits for the task that runs. */
export const startSweeper = ({ tasks, every_ms, log }: SweeperOptions): AsyncDisposable => {
  let isStopped = false
  const run = async () => {
    for (const [name, task] of Object.entries(tasks)) {
      if (isStopped) return
      await task().catch((err: unknown) => {
        log.warn({ err, task: name }, 'sweeping failed and is tried again later')
      })
    }
  }
  let running = run()
  const timer = setInterval(() => {
    // One that takes long is not overtaken.
    running = running.then(run)
  }, every_ms).unref()
  return {
    [Symbol.asyncDispose]: async () => {
      isStopped = true
      clearInterval(timer)
      await running
    },
  }
}
