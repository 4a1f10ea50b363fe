// Progress on a terminal as a bar that redraws itself, elsewhere as plain lines now and then.

import type { WriteStream } from 'node:tty'

export interface Progress {
  /** `share` from 0 to 1, or undefined where nobody knows how long it takes. */
  show(share: number | undefined, text: string): void
  /** Leaves the last state standing and goes to the next line. */
  end(): void
}

const BAR = 24
/** Without a terminal a line is written at most this often, and at the end. */
const LINE_EVERY_MS = 10_000

type Out = Pick<WriteStream, 'write'> & Partial<Pick<WriteStream, 'isTTY' | 'columns'>>

/** Draws on `out`; the clock is passed in by tests. */
export function createProgress(out: Out, now: () => number = Date.now): Progress {
  let written: string | undefined
  let last: string | undefined
  let lineAt = Number.NEGATIVE_INFINITY

  const write = (line: string) => {
    written = line
    if (out.isTTY) out.write(`\r\u001b[2K${line.slice(0, (out.columns ?? 80) - 1)}`)
    else out.write(`${line}\n`)
  }

  return {
    show(share, text) {
      const percent = share === undefined ? '' : `${String(Math.floor(share * 100)).padStart(3)}% `
      last = out.isTTY && share !== undefined ? `${bar(share)} ${percent}${text}` : percent + text
      if (!out.isTTY && now() - lineAt < LINE_EVERY_MS) return
      lineAt = now()
      if (last !== written) write(last)
    },
    end() {
      if (last !== undefined && last !== written) write(last)
      if (last !== undefined && out.isTTY) out.write('\n')
      written = last = undefined
      lineAt = Number.NEGATIVE_INFINITY
    },
  }
}

const bar = (share: number): string => {
  const full = Math.round(Math.min(Math.max(share, 0), 1) * BAR)
  return `[${'#'.repeat(full)}${'-'.repeat(BAR - full)}]`
}

/** `1.5 MB`. */
export const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`

/** `48 s`, `3 min 05 s`. */
export const duration = (ms: number): string => {
  const seconds = Math.round(ms / 1000)
  if (seconds < 100) return `${seconds} s`
  return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, '0')} s`
}
