// A TCP relay that a test cuts: what lies behind it is refused, or takes connections and never answers.

import { connect, createServer, type NetConnectOpts, type Socket } from 'node:net'

export interface Relay extends AsyncDisposable {
  readonly port: number
  /** Ends all connections and refuses new ones. */
  cut(): Promise<void>
  /** Takes connections and keeps those that are, but nothing passes any more. */
  stall(): void
  restore(): Promise<void>
}

/** Passes everything on to `host:port` until it is told otherwise. */
export const openRelay = (host: string, port: number): Promise<Relay> => relayTo({ host, port })

/** Before a database: its relay, and its URL by way of it. */
export const relayDatabase = async (text: string): Promise<{ relay: Relay; url: string }> => {
  const url = new URL(text)
  const host = url.searchParams.get('host') ?? url.hostname
  const port = Number(url.searchParams.get('port') ?? (url.port || 5432))
  const target = host.startsWith('/') ? { path: `${host}/.s.PGSQL.${port}` } : { host, port }
  const relay = await relayTo(target)
  for (const name of ['host', 'port']) url.searchParams.delete(name)
  url.hostname = '127.0.0.1'
  url.port = String(relay.port)
  return { relay, url: url.href }
}

/** The same for any target, a unix socket too. */
export const relayTo = async (target: NetConnectOpts): Promise<Relay> => {
  const sockets = new Set<Socket>()
  let isStalled = false
  const server = createServer((near) => {
    const far = connect(target)
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        near.destroy()
        far.destroy()
      })
    }
    near.on('data', (bytes) => isStalled || far.write(bytes))
    far.on('data', (bytes) => isStalled || near.write(bytes))
  })
  const listen = (at: number) =>
    new Promise<void>((done, fail) => {
      server.once('error', fail)
      server.listen(at, '127.0.0.1', () => done())
    })
  await listen(0)
  const address = server.address()
  const taken = typeof address === 'object' && address ? address.port : 0
  const cut = async () => {
    const closed = new Promise<void>((done) => server.close(() => done()))
    for (const socket of sockets) socket.destroy()
    await closed
  }
  return {
    port: taken,
    cut,
    stall: () => {
      isStalled = true
    },
    restore: async () => {
      // What was swallowed is lost, so connections of that time are of no use.
      if (isStalled) for (const socket of sockets) socket.destroy()
      isStalled = false
      if (!server.listening) await listen(taken)
    },
    [Symbol.asyncDispose]: async () => {
      if (server.listening) await cut()
    },
  }
}
