// A small server that speaks the hub protocol for files in memory: listing in pages, ranges, ETags.

import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface HubServer extends AsyncDisposable {
  endpoint: string
  /** `METHOD path` of every request, in order. */
  requests: string[]
}

type Files = Record<string, Buffer>

/** Serves `repos['owner/name']['path']`. `damage` changes the bytes of that file on their way. */
export async function startHub(
  repos: Record<string, Files>,
  { damage, token }: { damage?: string; token?: string } = {},
): Promise<HubServer> {
  const requests: string[] = []
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`)
    if (token !== undefined && request.headers.authorization !== `Bearer ${token}`)
      return refuse(response, 401, 'Invalid credentials')
    const url = new URL(request.url ?? '/', 'http://hub')
    const [, tree] = /^\/api\/models\/([^/]+\/[^/]+)\/tree\/main$/.exec(url.pathname) ?? []
    if (tree) return list(url, repos[tree], response)
    const [, repo, path] = /^\/([^/]+\/[^/]+)\/resolve\/main\/(.+)$/.exec(url.pathname) ?? []
    const content = repo && path ? repos[repo]?.[path] : undefined
    if (!content) return refuse(response, 404, 'Entry not found')
    send(request, response, content, path === damage)
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    endpoint,
    requests,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((closed) => server.close(closed))
    },
  }
}

function list(url: URL, files: Files | undefined, response: ServerResponse) {
  if (!files) return refuse(response, 404, 'Repository not found')
  const entries = Object.entries(files).map(([path, content]) => ({
    type: 'file',
    path,
    size: content.length,
    oid: createHash('sha1').update(content).digest('hex'),
    ...(/\.(safetensors|gguf)$/.test(path) && {
      lfs: { oid: sha256(content), size: content.length, pointerSize: 130 },
    }),
  }))
  const start = Number(url.searchParams.get('cursor') ?? 0)
  const page = entries.slice(start, start + 2)
  if (start + 2 < entries.length) {
    const next = new URL(url.href)
    next.searchParams.set('cursor', String(start + 2))
    response.setHeader('link', `<${next.href.replace('http://hub', host(response))}>; rel="next"`)
  }
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify(page))
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  content: Buffer,
  damaged: boolean,
) {
  response.setHeader('etag', `"${sha256(content)}"`)
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? []
  const body = damaged ? Buffer.alloc(content.length, 1) : content
  if (from === undefined || to === undefined) return response.end(body)
  response.statusCode = 206
  response.setHeader('content-range', `bytes ${from}-${to}/${content.length}`)
  response.end(body.subarray(Number(from), Number(to) + 1))
}

function refuse(response: ServerResponse, status: number, error: string) {
  response.statusCode = status
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify({ error }))
}

const host = (response: ServerResponse) => `http://${response.req.headers.host}`
const sha256 = (content: Buffer) => createHash('sha256').update(content).digest('hex')
