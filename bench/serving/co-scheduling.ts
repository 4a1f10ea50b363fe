// tsx bench/serving/co-scheduling.ts MODEL [SECONDS]: answers while a job trains, at 1, 4 and 16 clients, beside those of
// the idle server; the share of the device that training keeps; its speed without clients, beside that of the trainer alone
// with the same plan; its losses both ways.

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { spawn } from '../../src/engine/runtime/thread.ts'
import type { Plan, TrainEvent, TrainThreadRequest } from '../../src/engine/train/request.ts'
import { quantile, startServer } from './server.ts'

const [path, seconds = '20'] = process.argv.slice(2)
if (!path) throw new Error('tsx bench/serving/co-scheduling.ts MODEL [SECONDS]')

await using server = await startServer(path)
let salt = 0

/** Clients that ask one after the other for a while. */
async function load(clients: number) {
  const before = await turns()
  const began = performance.now()
  const heard = await Promise.all(
    Array.from({ length: clients }, async () => {
      const all = []
      while (performance.now() - began < Number(seconds) * 1000)
        all.push(
          await server.stream({
            prompt: `Letter ${salt++}: dear friend, today I walked along the coast and saw `,
            max_tokens: 24,
            logit_bias: { 0: -100, 2: -100 },
          }),
        )
      return all
    }),
  )
  const flat = heard.flat()
  const after = await turns()
  const trained = after.seconds - before.seconds
  return {
    first: quantile(
      flat.map(({ first }) => first),
      0.95,
    ),
    gap: quantile(
      flat.flatMap(({ gaps }) => gaps),
      0.95,
    ),
    share: (100 * trained) / ((performance.now() - began) / 1000),
    micro: (1000 * trained) / (after.turns - before.turns),
  }
}

/** What training has held the device for so far. */
async function turns() {
  const metrics = await server.metrics()
  const of = (name: string) => metrics.get(`luthier_device_${name}{claimant="training"}`) ?? 0
  return { turns: of('turns_total'), seconds: of('seconds_total') }
}

const rows = Array.from({ length: 64 }, (_, i) =>
  JSON.stringify({
    messages: [
      {
        role: 'user',
        content: `Ticket ${i}: my parcel number ${i * 37} has not come, what shall I do?`,
      },
      {
        role: 'assistant',
        content: `Parcel ${i * 37} is at the depot; it comes tomorrow before noon.`,
      },
    ],
  }),
).join('\n')
const training_file = await server.upload(rows)
const hyperparametersOf = (n_epochs: number) => ({
  n_epochs,
  batch_size: 8,
  learning_rate_multiplier: 'auto' as const,
  precision: 'int8' as const,
  lr_schedule: 'constant' as const,
  warmup_ratio: 0,
})
/** Of a job without clients. */
const EPOCHS = 8
/** What comes after the last step is not training, and the first step is slow. */
const [FIRST, LAST] = [1, 8 * EPOCHS - 1]

/** Milliseconds between those steps by a trainer that shares its device with nobody, at the plan that the server makes. */
async function bare(): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'luthier-bare-'))
  const training = { path: join(folder, 'train.jsonl') }
  await writeFile(training.path, rows)
  await using thread = spawn<TrainThreadRequest, TrainEvent>(
    new URL('../../src/engine/train/worker.ts', import.meta.url),
  )
  const asked = { model: path!, method: 'supervised' as const, training, cache: server.cache }
  let plan: Plan | undefined
  for await (const event of thread.run({
    type: 'inspect',
    ...asked,
    hyperparameters: hyperparametersOf(EPOCHS),
    micro_step_seconds: 0.3,
  }))
    if (event.type === 'inspected') plan = event.plan
  if (!plan) throw new Error('The rows are not fit for training.')
  console.log(`trainer alone: ${plan.reasons.find((reason) => reason.startsWith('micro-batches'))}`)
  const at = new Map<number, number>()
  for await (const event of thread.run({ type: 'train', ...asked, plan, seed: 5 }))
    if (event.type === 'step') at.set(event.metrics.step, performance.now())
  await rm(folder, { recursive: true })
  return at.get(LAST)! - at.get(FIRST)!
}

async function startJob(n_epochs: number) {
  const { id } = await server.ask('/fine_tuning/jobs', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: server.model,
      training_file,
      seed: 5,
      method: {
        type: 'supervised',
        supervised: {
          hyperparameters: hyperparametersOf(n_epochs),
        },
      },
    }),
  })
  return id as string
}
const losses = async (id: string) => {
  const { data } = await server.ask(`/fine_tuning/jobs/${id}/events?limit=1000`)
  const steps = data.filter((event: { type: string }) => event.type === 'metrics')
  return new Map<number, { loss: number; at: number }>(
    steps.map((e: { data: { step: number; train_loss: number }; created_at: number }) => [
      e.data.step,
      { loss: e.data.train_loss, at: e.created_at },
    ]),
  )
}
const until = async (id: string, enough: (job: { status: string }, steps: number) => boolean) => {
  for (;;) {
    const job = await server.ask(`/fine_tuning/jobs/${id}`)
    if (job.status === 'failed') throw new Error(JSON.stringify(job.error))
    if (enough(job, (await losses(id)).size)) return
    await sleep(200)
  }
}

await server.stream({ prompt: 'warm up', max_tokens: 4 })
const idle = new Map<number, Awaited<ReturnType<typeof load>>>()
for (const clients of [1, 4, 16]) idle.set(clients, await load(clients))
console.log('the idle server has been asked')

// Undisturbed first: its losses, and its pace. The trainer alone comes twice after it.
const alone = await startJob(EPOCHS)
const newest = async () => {
  const { data } = await server.ask(`/fine_tuning/jobs/${alone}/events?limit=1`)
  return (data[0]?.data?.step as number | undefined) ?? 0
}
// Who asks too often takes the processor from the job.
while ((await newest()) < FIRST) await sleep(300)
const began = performance.now()
while ((await newest()) < LAST) await sleep(300)
const took = performance.now() - began
await until(alone, ({ status }) => status === 'succeeded')
const undisturbed = await losses(alone)
/** A job's micro-batches are settled as it starts, by the speed that is then known; another size sums in another order. */
const sizeOf = async (id: string): Promise<string> => {
  const { data } = await server.ask(`/fine_tuning/jobs/${id}/events?limit=1000`)
  return data
    .flatMap((event: { data?: { reasons?: string[] } }) => event.data?.reasons ?? [])
    .find((reason: string) => reason.startsWith('micro-batches'))
}
console.log(await sizeOf(alone))
const held = await turns()
console.log(`alone: micro-step ${((1000 * held.seconds) / held.turns).toFixed(0)} ms`)
const trained = [await bare(), await bare()]
console.log(
  `steps ${FIRST} to ${LAST}: in the server without clients ${took.toFixed(0)} ms, by the trainer alone ${trained.map((ms) => ms.toFixed(0)).join(' and ')} ms`,
)

const id = await startJob(50)
await until(id, (_, steps) => steps >= 1)
console.log(`while answering: ${await sizeOf(id)}`)
for (const clients of [1, 4, 16]) {
  const quiet = idle.get(clients)!
  const busy = await load(clients)
  const over = (a: number, b: number) => ((a - b) / busy.micro).toFixed(2)
  console.log(
    `${String(clients).padStart(2)} clients: p95 first token ${quiet.first.toFixed(0)} → ${busy.first.toFixed(0)} ms (+${over(busy.first, quiet.first)} micro-steps), between tokens ${quiet.gap.toFixed(0)} → ${busy.gap.toFixed(0)} ms (+${over(busy.gap, quiet.gap)}), micro-step ${busy.micro.toFixed(0)} ms, training's share ${busy.share.toFixed(0)} %`,
  )
}
await server.ask(`/fine_tuning/jobs/${id}/cancel`, { method: 'POST' })
const disturbed = await losses(id)
const common = [...disturbed].filter(([step]) => undisturbed.has(step))
const equal = common.filter(([step, { loss }]) => undisturbed.get(step)?.loss === loss)
console.log(
  `${equal.length} of ${common.length} losses are bit-identical to those of the undisturbed job`,
)
