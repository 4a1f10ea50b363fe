// tsx bench/serving/co-scheduling.ts MODEL [SECONDS]: answers while a job trains, at 1, 4 and 16 clients, beside those of
// the idle server; the share of the device that training keeps; its speed without clients; its losses both ways.

import { setTimeout as sleep } from 'node:timers/promises'
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
          hyperparameters: {
            n_epochs,
            batch_size: 8,
            precision: 'int8',
            lr_schedule: 'constant',
            warmup_ratio: 0,
          },
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

// Undisturbed first: its losses, and its pace.
const alone = await startJob(3)
await until(alone, (_, steps) => steps >= 1)
const [first, began] = [await turns(), performance.now()]
await until(alone, (_, steps) => steps >= 23) // of 24: what comes after the last step is not training
const last = await turns()
const computing = (last.seconds - first.seconds) / ((performance.now() - began) / 1000)
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
console.log(
  `alone: micro-step ${((1000 * held.seconds) / held.turns).toFixed(0)} ms, ${(100 * computing).toFixed(1)} % of the time between steps 1 and 23 is computing`,
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
