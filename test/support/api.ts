// Asking a test's service by inject, reply and body at hand.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import type { Scope } from '../../src/service/auth/keys.ts'
import type { Purpose } from '../../src/service/files/files.ts'
import { bearer, type ServiceOptions, startService, type TestService } from './service.ts'

export interface Reply {
  status: number
  // biome-ignore lint/suspicious/noExplicitAny: a test looks into what it expects
  body: any
}

/** Asks with one key. */
export interface TestClient {
  get(url: string): Promise<Reply>
  post(url: string, body?: object): Promise<Reply>
  delete(url: string): Promise<Reply>
}

export interface TestApi extends TestService, TestClient {
  /** An uploaded file's id. */
  upload(content: string, options?: { purpose?: Purpose; filename?: string }): Promise<string>
  /** Of another project. */
  stranger(): Promise<TestClient>
  /** Of this project, with another scope. */
  withScope(scope: Scope): Promise<TestClient>
}

/** Opens a service with one base model, `tiny`, which cannot be loaded, or with those of `models`. */
export async function openTestApi(
  options: { models?: string } & Pick<
    ServiceOptions,
    'aliases' | 'objects' | 'moderationModel'
  > = {},
): Promise<TestApi> {
  const { models, ...rest } = options
  const made = models === undefined ? await tinyModels() : undefined
  const remove = () => (made ? rm(made, { recursive: true, force: true }) : Promise.resolve())
  const modelFolder = models ?? made ?? ''
  let service: TestService
  try {
    service = await startService({ ...rest, modelFolder })
  } catch (error) {
    await remove()
    throw error
  }
  const { app, files, caller } = service
  return {
    ...service,
    ...clientOf(app, service.key),
    async upload(content, { purpose = 'fine-tune', filename = 'rows.jsonl' } = {}) {
      const upload = await files.receive(caller.project_id, Readable.from([Buffer.from(content)]))
      return (await files.create(caller.project_id, { filename, purpose }, upload)).id
    },
    stranger: async () =>
      clientOf(app, await service.keyOf('admin', await service.anotherProject())),
    withScope: async (scope) => clientOf(app, await service.keyOf(scope)),
    [Symbol.asyncDispose]: async () => {
      await service[Symbol.asyncDispose]()
      await remove()
    },
  }
}

async function tinyModels(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'luthier-models-'))
  await mkdir(join(folder, 'tiny'))
  await writeFile(join(folder, 'tiny', 'config.json'), '{}')
  return folder
}

function clientOf(app: FastifyInstance, key: string): TestClient {
  const ask = async (method: 'GET' | 'POST' | 'DELETE', url: string, body?: object) => {
    const headers = bearer(key)
    const reply = await app.inject({ method, url, headers, ...(body && { payload: body }) })
    return { status: reply.statusCode, body: reply.json() }
  }
  return {
    get: (url) => ask('GET', url),
    post: (url, body) => ask('POST', url, body),
    delete: (url) => ask('DELETE', url),
  }
}
