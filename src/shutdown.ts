// How a server stops: named phases in one order, each logged with its duration.

import type { Logger } from './log.ts'

/** In this order. What belongs to no phase is stopped with its process. */
const PHASES = [
  /** No new connection, no new work. */
  'stop listening',
  /** The running step ends, its state is committed, the work is given back. */
  'checkpoint running work',
  /** Streams and uploads have a bounded time. */
  'finish requests',
  'stop computing',
  'close pools',
  'stop embedded Postgres',
] as const

export type Phase = (typeof PHASES)[number]

export interface Shutdown {
  /** Within a phase, what was added last is stopped first. */
  add(phase: Phase, stop: () => PromiseLike<unknown>): void
  /** Stops everything, once; a part that fails to stop does not keep the others from it. */
  run(): Promise<void>
}

export const createShutdown = (log: Logger): Shutdown => {
  const parts: { phase: Phase; stop: () => PromiseLike<unknown> }[] = []
  let running: Promise<void> | undefined
  const runPhase = async (phase: Phase): Promise<void> => {
    const stops = parts.filter((part) => part.phase === phase).reverse()
    if (stops.length === 0) return
    const began = performance.now()
    for (const { stop } of stops)
      try {
        await stop()
      } catch (err) {
        log.error({ err, phase }, 'a part did not stop cleanly')
      }
    log.info({ phase, ms: Math.round(performance.now() - began) }, 'shutdown phase ended')
  }
  const runAll = async () => {
    for (const phase of PHASES) await runPhase(phase)
  }
  return {
    add: (phase, stop) => void parts.push({ phase, stop }),
    run: () => (running ??= runAll()),
  }
}
