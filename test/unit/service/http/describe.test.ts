import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { describeApp } from '../../../../src/service/http/describe.ts'

const root = fileURLToPath(new URL('../../../../', import.meta.url))

test('openapi/openapi.json is what the routes say; after a change: npm run openapi', async () => {
  expect(await readFile(`${root}openapi/openapi.json`, 'utf8')).toBe(await describeApp())
})

test('the description of the API is valid', async () => {
  const lint = promisify(execFile)('npx', ['redocly', 'lint', 'openapi/openapi.json'], {
    cwd: root,
    env: { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' },
  })
  const { stderr } = await lint
  expect(stderr).toMatch(/is valid/)
}, 60_000)

test('every operation has a name, and every one under /v1 wants a key and fails in one shape', async () => {
  const { paths } = JSON.parse(await describeApp()) as {
    paths: Record<
      string,
      Record<
        string,
        { operationId?: string; security?: object[]; responses: Record<string, unknown> }
      >
    >
  }
  const names: string[] = []
  for (const [path, methods] of Object.entries(paths))
    for (const operation of Object.values(methods)) {
      names.push(operation.operationId ?? `none at ${path}`)
      if (!path.startsWith('/v1/')) continue
      expect(operation.security).toEqual([{ api_key: [] }])
      expect(Object.keys(operation.responses)).toEqual(expect.arrayContaining(['4XX', '5XX']))
    }
  expect(names.length).toBeGreaterThan(10)
  expect(new Set(names).size).toBe(names.length)
  expect(names.filter((name) => name.startsWith('none'))).toEqual([])
})
