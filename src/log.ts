// The logger: one JSON line a happening, on standard output (the command line: on standard error).

import { destination, type Logger, pino, stdSerializers } from 'pino'

export type { Logger } from 'pino'

/** What `LOG_LEVEL` may say. */
export const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const
export type LogLevel = (typeof logLevels)[number]

/** Makes the process's logger; keys never reach a log line. */
export const createLog = (level: LogLevel = 'info', file_descriptor: 1 | 2 = 1): Logger =>
  pino(
    {
      level,
      base: null,
      redact: ['req.headers.authorization', 'headers.authorization'],
      serializers: { err: stdSerializers.err },
    },
    // Written at once: buffered lines come out of order, or not at all, when the process ends.
    destination({ dest: file_descriptor, sync: true }),
  )
