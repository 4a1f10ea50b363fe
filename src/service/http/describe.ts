// The description of the API without a running service: routes are registered, none is called.

import { createLog } from '../../log.ts'
import { type AppDeps, buildApp } from './app.ts'

/** OpenAPI 3.1 as JSON text. */
export const describeApp = async (): Promise<string> => {
  const app = await buildApp({
    log: createLog('silent'),
    db: absent('db'),
    files: absent('files'),
    uploads: absent('uploads'),
    health: { whyNotReady: async () => undefined },
    inference: {
      models: absent('models'),
      serving: absent('serving'),
      limits: absent('limits'),
      responses: absent('responses'),
      completions: absent('completions'),
    },
    fineTuning: { jobs: absent('jobs'), db: absent('db') },
    preflights: { preflights: absent('preflights'), jobs: absent('jobs') },
    examples: { examples: absent('examples') },
    merges: { merges: absent('merges') },
    batches: { batches: absent('batches') },
    imports: { imports: absent('imports') },
    sweeps: { sweeps: absent('sweeps') },
    graders: { graders: absent('graders'), limits: absent('limits') },
    evals: { evals: absent('evals'), runs: absent('runs') },
    comparisons: { comparisons: absent('comparisons') },
    models: { models: absent('models'), latestEval: absent('latestEval') },
    provenance: { weights: absent('weights'), provenance: absent('provenance') },
    metrics: absent('metrics'),
  } satisfies AppDeps)
  try {
    await app.ready()
    return `${JSON.stringify(app.swagger(), null, 2)}\n`
  } finally {
    await app.close()
  }
}

/** A part that no route may use before a request comes. */
const absent = <Part extends object>(name: string): Part =>
  new Proxy({} as Part, {
    get: (_, property) => () => {
      throw new Error(`${name}.${String(property)} was called, but only the routes are described.`)
    },
  })
