// Runs one scenario with another version of the client, under another Node: `node run.ts SCENARIO`.
// CLIENT_PACKAGE is the folder of the `openai` package; the rest of the context is in CONTEXT as JSON.

import { createRequire } from 'node:module'
import { join } from 'node:path'
import type OpenAI from 'openai'
import { scenarios } from './scenarios.ts'

const { CLIENT_PACKAGE, CONTEXT } = process.env
if (!CLIENT_PACKAGE || !CONTEXT) throw new Error('CLIENT_PACKAGE and CONTEXT must be set')
const client = createRequire(import.meta.url)(join(CLIENT_PACKAGE, 'index.js')) as {
  OpenAI: typeof OpenAI
}
const scenario = scenarios.find(({ name }) => name === process.argv[2])
if (!scenario) throw new Error(`There is no scenario "${process.argv[2]}"`)
await scenario.run({ ...JSON.parse(CONTEXT), OpenAI: client.OpenAI })
