// `npm run openapi`: writes the description of the API, generated from the routes, to openapi/openapi.json.

import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { describeApp } from '../service/http/describe.ts'

const path = fileURLToPath(new URL('../../openapi/openapi.json', import.meta.url))
await writeFile(path, await describeApp())
process.stdout.write(`${path}\n`)
