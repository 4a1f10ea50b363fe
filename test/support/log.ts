// A logger for tests: silent, unless LOG_LEVEL asks for more.

import { createLog, type LogLevel } from '../../src/log.ts'

export const testLog = createLog((process.env.LOG_LEVEL ?? 'silent') as LogLevel)
