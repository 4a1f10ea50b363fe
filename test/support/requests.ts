// Plain requests to a running server, for what the official client has no words for: sent, asked until, uploaded.

import { setTimeout as sleep } from 'node:timers/promises'
import type { LuthierServer } from './luthier-server.ts'

// biome-ignore lint/suspicious/noExplicitAny: a test looks into what it expects
export type Reply = any

export interface Requests {
  /** The reply, whatever its status. With a body it is a POST: a form, a text of this type, or JSON. */
  send(path: string, body?: string | object, type?: string): Promise<Response>
  /** What a reply says; throws where it is an error. */
  ask(path: string, body?: string | object, type?: string): Promise<Reply>
  /** Asks until it is done, two minutes at most. */
  until(path: string, done: (body: Reply) => boolean): Promise<Reply>
  /** Waits for the end; throws the error that it ended with. */
  ended(path: string): Promise<Reply>
  /** The id of a file of these rows, to be tuned on. */
  upload(rows: readonly object[]): Promise<string>
}

const WAIT_MS = 120_000
const PAUSE_MS = 100

/** Requests with the server's own key; `server` is looked up with each of them. */
export function requestsTo(server: () => LuthierServer): Requests {
  const send: Requests['send'] = (path, body, type = 'application/json') =>
    fetch(`${server().baseURL}${path}`, {
      headers: {
        authorization: `Bearer ${server().apiKey}`,
        ...(body && !(body instanceof FormData) && { 'content-type': type }),
      },
      ...(body && {
        method: 'POST',
        body: typeof body === 'string' || body instanceof FormData ? body : JSON.stringify(body),
      }),
    })
  const ask: Requests['ask'] = async (path, body, type) => {
    const reply = await send(path, body, type)
    if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`)
    return reply.json()
  }
  const until: Requests['until'] = async (path, done) => {
    for (let waited = 0; waited < WAIT_MS; waited += PAUSE_MS) {
      const body = await ask(path)
      if (done(body)) return body
      await sleep(PAUSE_MS)
    }
    throw new Error(`It did not come to that: ${JSON.stringify(await ask(path))}`)
  }
  return {
    send,
    ask,
    until,
    async ended(path) {
      const body = await until(path, ({ finished_at }) => finished_at !== null)
      if (body.error) throw new Error(JSON.stringify(body.error))
      return body
    },
    async upload(rows) {
      const form = new FormData()
      form.set('purpose', 'fine-tune')
      const text = rows.map((row) => JSON.stringify(row)).join('\n')
      form.set('file', new Blob([text]), 'rows.jsonl')
      return (await ask('/files', form)).id
    },
  }
}
