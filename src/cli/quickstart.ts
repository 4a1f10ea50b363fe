// npm run quickstart: from nothing to a tuned model that is measured against its base, in one command.

import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Config, readConfig } from '../config.ts'
import { obtainBaseModel } from '../quickstart/base-model.ts'
import { Client } from '../quickstart/client.ts'
import { quickstart, type Score } from '../quickstart/quickstart.ts'
import { SCRATCH, SCRATCH_HYPERPARAMETERS } from '../quickstart/scratch-model.ts'
import { readHeldOut } from '../quickstart/tickets.ts'
import { startServer } from '../server.ts'
import { createProgress, duration, megabytes, type Progress } from './progress.ts'
import { timeLeft } from './time-left.ts'

const SAMPLE = fileURLToPath(new URL('../../examples/support-desk/', import.meta.url))

const TRAINING = join(SAMPLE, 'train.jsonl')

/** What a shell expects of a program that Ctrl-C ended. */
const INTERRUPTED = 130

interface Row {
  model: string
  score: Score
}

async function main(): Promise<number> {
  // Asked to stop at any moment, the server and its database are stopped before the process ends.
  const interrupted = new Promise<undefined>((stop) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop(undefined))
  })
  const config = await settings()
  const progress = createProgress(process.stdout)
  const took = stopwatch()

  const model = await Promise.race([baseModel(config, progress), interrupted])
  if (model === undefined) return INTERRUPTED
  took('base model')
  await using server = await startServer(config)
  const baseURL = `${server.url}/v1`
  console.log(`The server runs at ${baseURL}`)
  took('start of the server')

  const client = new Client(baseURL, server.apiKey)
  const rows = await Promise.race([walk(client, model, progress, took), interrupted])
  if (rows === undefined) return INTERRUPTED

  const { base, tuned } = rows
  if (!base || !tuned) throw new Error('The quickstart ended without both evaluations.')
  console.log(`
Right tickets among ${base.score.of} messages that neither model has seen:

  base   ${percent(base.score)}   ${base.model}
  tuned  ${percent(tuned.score)}   ${tuned.model}

Time taken:
${took.table()}

  model      ${tuned.model}
  base URL   ${baseURL}
  API key    ${server.apiKey}
  dashboard  ${server.url}/`)

  if (process.stdin.isTTY && process.stdout.isTTY) {
    console.log('\nThe server goes on until Ctrl-C.')
    await interrupted
    console.log('\nStopping.')
  }
  return 0
}

/** The usual settings, but quiet, and on a free port where the default one is taken. */
async function settings(): Promise<Config> {
  const config = readConfig({ LOG_LEVEL: 'warn', ...process.env })
  if (process.env.PORT || (await isFree(config))) return config
  return readConfig({ LOG_LEVEL: 'warn', ...process.env, PORT: '0' })
}

const isFree = ({ host, port }: Config) =>
  new Promise<boolean>((done) => {
    const probe = createServer()
    probe.once('error', () => done(false))
    probe.listen(port, host, () => probe.close(() => done(true)))
  })

async function baseModel({ models, hub }: Config, progress: Progress): Promise<string> {
  const events = obtainBaseModel({ folder: models, hub, sample: TRAINING })
  while (true) {
    const { value, done } = await events.next()
    if (done) return value
    switch (value.type) {
      case 'found':
        console.log(`Base model: ${value.id}, here already`)
        break
      case 'fetching':
        progress.show(
          value.total_bytes > 0 ? value.bytes / value.total_bytes : undefined,
          `fetching ${value.file}${value.total_bytes > 0 ? ` (${megabytes(value.total_bytes)})` : ''}`,
        )
        break
      case 'pulled':
      case 'adopted':
        progress.end()
        console.log(`Base model: ${value.id}`)
        break
      case 'source_failed':
        progress.end()
        console.log(`${value.source} is not to be had: ${value.reason}`)
        break
      case 'made':
        console.log(`
No base model could be had, so one was made here as a last resort: a llama of ${value.parameters.toLocaleString('en')}
parameters with random weights, called ${value.id}. It knows no language. It is now trained from scratch on the
sample set, all its weights, which shows how everything goes together, and no more than that. Supply a
model that has learned a language in one of three ways, and start again:
${value.ways}
`)
        break
      default:
        value satisfies never
    }
  }
}

async function walk(
  client: Client,
  model: string,
  progress: Progress,
  took: (part: string) => void,
) {
  const rows: { base?: Row; tuned?: Row } = {}
  const left = timeLeft()
  const events = quickstart({
    client,
    model,
    training_file: TRAINING,
    heldOut: await readHeldOut(join(SAMPLE, 'heldout.jsonl')),
    hyperparameters: model === SCRATCH ? SCRATCH_HYPERPARAMETERS : { n_epochs: 'auto' },
  })
  for await (const event of events)
    switch (event.type) {
      case 'uploaded':
        console.log(`Uploaded the sample set as ${event.file}`)
        took('upload')
        break
      case 'evaluating':
        progress.show(event.done / event.of, `${event.row} model answers held-out messages`)
        break
      case 'evaluated':
        progress.end()
        rows[event.row] = { model: event.model, score: event.score }
        console.log(`The ${event.row} model got ${event.score.right} of ${event.score.of} right`)
        took(`evaluation of the ${event.row} model`)
        break
      case 'created':
        break
      case 'said':
        progress.end()
        console.log(event.message)
        break
      case 'step': {
        const { step, total_steps, train_loss } = event
        const rest = left(step, total_steps)
        progress.show(
          step / total_steps,
          `step ${step}/${total_steps}, loss ${train_loss.toFixed(3)}${rest === undefined ? '' : `, ${duration(rest)} left`}`,
        )
        break
      }
      case 'tuned':
        progress.end()
        took('tuning')
        break
      default:
        event satisfies never
    }
  return rows
}

/** Each call ends a part; the table says how long every part took. */
function stopwatch() {
  const parts: [string, number][] = []
  const started = performance.now()
  let last = started
  const took = (part: string) => {
    const now = performance.now()
    parts.push([part, now - last])
    last = now
  }
  return Object.assign(took, {
    table: () =>
      [...parts, ['in all', performance.now() - started] as const]
        .map(([part, ms]) => `  ${part.padEnd(30)} ${duration(ms)}`)
        .join('\n'),
  })
}

const percent = ({ right, of }: Score) => `${((100 * right) / of).toFixed(1).padStart(5)} %`

try {
  // Whatever still holds the process (a keep-alive connection) has nothing left to do.
  process.exit(await main())
} catch (error) {
  console.error(`\nquickstart: ${error instanceof Error ? error.message : error}`)
  process.exit(1)
}
