import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fastify } from 'fastify'
import { expect, test } from 'vitest'
import { streamEvents } from '../../../../src/service/http/sse.ts'

/** A server that streams without end, and what became of the stream. */
async function endless(stall_ms: number) {
  const app = fastify()
  const state = { written: 0, ended: false }
  app.get('/', (request, reply) =>
    streamEvents(
      request,
      reply,
      async function* () {
        try {
          for (;;) {
            state.written++
            yield { text: 'x'.repeat(65_536) }
          }
        } finally {
          state.ended = true
        }
      },
      { stall_ms },
    ),
  )
  await app.listen({ port: 0 })
  const address = app.server.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  return { app, socket, state }
}

test('a client that reads nothing any more is let go, and what it was being sent ends', async () => {
  const { app, socket, state } = await endless(300)
  try {
    await once(socket, 'data')
    socket.pause()
    socket.on('error', () => {})
    while (!state.ended) await sleep(20)
    // What lies in buffers of the system, and no more.
    expect(state.written * 65_536).toBeLessThan(100e6)
  } finally {
    socket.destroy()
    await app.close()
  }
})

test('a client that reads slowly is waited for', async () => {
  const { app, socket, state } = await endless(1000)
  try {
    socket.on('error', () => {})
    socket.on('data', () => {})
    for (let i = 0; i < 6; i++) {
      socket.resume()
      await sleep(50)
      socket.pause()
      await sleep(200)
    }
    expect(state.ended).toBe(false)
  } finally {
    socket.destroy()
    await app.close()
  }
  while (!state.ended) await sleep(20)
})
