// The line from a file to a better model, walked through the public API. Prints nothing: it yields.

import type { Client, Job } from './client.ts'
import { type HeldOut, parseTicket } from './tickets.ts'

export interface Score {
  right: number
  of: number
}

export type QuickstartEvent =
  | { type: 'uploaded'; file: string }
  | { type: 'evaluating'; row: 'base' | 'tuned'; done: number; of: number }
  | { type: 'evaluated'; row: 'base' | 'tuned'; model: string; score: Score }
  | { type: 'created'; job: string }
  | { type: 'said'; message: string }
  | { type: 'step'; step: number; total_steps: number; train_loss: number }
  | { type: 'tuned'; model: string; trained_tokens: number }

export interface QuickstartOptions {
  client: Client
  model: string
  training_file: string
  heldOut: HeldOut[]
  hyperparameters: Record<string, number | string>
  poll_ms?: number
}

/** A ticket has about 20 tokens; twice that leaves room for a longer name of a product. */
const MAX_TOKENS = 40
/** Requests under way at once while a model is evaluated. */
const AT_ONCE = 8

/** Evaluates the base, uploads, tunes, evaluates the tuned model. Throws when the job fails. */
export async function* quickstart({
  client,
  model,
  training_file,
  heldOut,
  hyperparameters,
  poll_ms = 1000,
}: QuickstartOptions): AsyncGenerator<QuickstartEvent, void, undefined> {
  const file = await client.upload(training_file)
  yield { type: 'uploaded', file }
  yield* evaluate(client, 'base', model, heldOut)

  const created = await client.createJob({
    model,
    training_file: file,
    suffix: 'support-desk',
    seed: 42,
    method: { type: 'supervised', supervised: { hyperparameters } },
  })
  yield { type: 'created', job: created.id }
  const job = yield* follow(client, created.id, poll_ms)
  if (job.status !== 'succeeded' || job.fine_tuned_model === null)
    throw new Error(
      `The job ${job.id} has ${job.status}: ${job.error?.message ?? 'no reason given'}`,
    )
  yield { type: 'tuned', model: job.fine_tuned_model, trained_tokens: job.trained_tokens ?? 0 }

  yield* evaluate(client, 'tuned', job.fine_tuned_model, heldOut)
}

/** Polls until the job ends; every event is yielded once, the oldest first. */
async function* follow(
  client: Client,
  id: string,
  poll_ms: number,
): AsyncGenerator<QuickstartEvent, Job, undefined> {
  const seen = new Set<string>()
  while (true) {
    // The job first: what happened before it ended is then among the events.
    const job = await client.retrieveJob(id)
    const events = await client.listEvents(id, 100)
    for (const event of events.reverse()) {
      if (seen.has(event.id)) continue
      seen.add(event.id)
      const { step, total_steps, train_loss } = event.data ?? {}
      if (step !== undefined && total_steps !== undefined && train_loss !== undefined)
        yield { type: 'step', step, total_steps, train_loss }
      else yield { type: 'said', message: event.message }
    }
    if (['succeeded', 'failed', 'cancelled'].includes(job.status)) return job
    await new Promise((wake) => setTimeout(wake, poll_ms))
  }
}

async function* evaluate(
  client: Client,
  row: 'base' | 'tuned',
  model: string,
  heldOut: HeldOut[],
): AsyncGenerator<QuickstartEvent> {
  let right = 0
  let done = 0
  const waiting = new Set<Promise<void>>()
  for (const { prompt, category } of heldOut) {
    if (waiting.size >= AT_ONCE) await Promise.race(waiting)
    const asked = client.chat(model, prompt, MAX_TOKENS).then((answer) => {
      if (parseTicket(answer) === category) right++
      done++
      waiting.delete(asked)
    })
    // A failure is met by the next race or at the end; until then it must not count as unhandled.
    asked.catch(() => {})
    waiting.add(asked)
    yield { type: 'evaluating', row, done, of: heldOut.length }
  }
  await Promise.all(waiting)
  yield { type: 'evaluated', row, model, score: { right, of: heldOut.length } }
}
