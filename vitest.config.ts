import { defineConfig } from 'vitest/config'

const lane = (name: string, timeout: number, globalSetup: string[] = []) => ({
  test: {
    name,
    globalSetup,
    include: [`test/${name}/**/*.test.ts`],
    testTimeout: timeout,
    hookTimeout: timeout,
  },
})

export default defineConfig({
  test: {
    // Two cores and real models: files take turns, so that timings inside a test mean something.
    fileParallelism: false,
    pool: 'forks',
    projects: [
      lane('unit', 20_000),
      lane('golden', 120_000),
      lane('integration', 120_000, ['test/support/postgres-server.ts']),
      lane('e2e', 600_000, ['test/support/postgres-server.ts']),
    ],
  },
})
