// The door of a process: where it listens, how it is reached from outside, how it is closed.

import type { AddressInfo } from 'node:net'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import type { Config } from './config.ts'
import type { Logger } from './log.ts'

/** How long streams and uploads may go on after a stop was asked for. */
export const DRAIN_MS = 10_000

/** Listens, and says where: a URL without a path. */
export const listen = async (app: FastifyInstance, { host, port }: Config): Promise<string> => {
  await app.listen({ host, port, listenTextResolver: (address) => `listening at ${address}` })
  const { family, address, port: taken } = app.server.address() as AddressInfo
  const isAny = address === '0.0.0.0' || address === '::'
  const name = isAny ? '127.0.0.1' : family === 'IPv6' ? `[${address}]` : address
  return `http://${name}:${taken}`
}

/** A worker that listens everywhere is found by the name of its machine. */
export const reachedFromOutside = (url: string, { host }: Config): string => {
  if (host !== '0.0.0.0' && host !== '::') return url
  const outside = new URL(url)
  outside.hostname = hostname()
  return outside.origin
}

/** Takes no new connection, gives running requests their time, then ends what is left. */
export const drain = async (app: FastifyInstance, log: Logger): Promise<void> => {
  const limit = new AbortController()
  const late = sleep(DRAIN_MS, undefined, { signal: limit.signal }).then(
    () => {
      log.warn('requests were cut off: they took longer than a shutdown waits')
      app.server.closeAllConnections()
    },
    () => {},
  )
  await app.close()
  limit.abort()
  await late
}
