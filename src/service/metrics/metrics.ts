// What the page /metrics tells: counted here or asked when the page is read. The one door to prom-client.
// No label names a customer, a key, a model or a job: the page needs no key.

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Inside } from '../../engine/infer/request.ts'
import { jobsByStatus } from '../db/fine-tuning-jobs.ts'
import type { Pool } from '../db/pool.ts'
import { workByState } from '../db/work.ts'

/** What is timed of a request. */
type Timed = 'first_token' | 'between_tokens' | 'request' | 'queue'

export interface Metrics {
  page(): Promise<{ content_type: string; text: string }>
  /** A request was answered. */
  answered(request: { method: string; route: string; status: number; seconds: number }): void
  /** A step of training was kept. */
  stepped(step: { tokens: number; seconds: number }): void
  /** A request's first token, its further ones, and its end. */
  timed(what: Timed, seconds: number): void
  /** No job trains here any more. */
  rested(): void
}

/** What the parts count themselves. */
export interface Counted {
  readonly db: Pool
  readonly serving: {
    readonly taken: number
    readonly usage: { readonly prompt_tokens: number; readonly completion_tokens: number }
    /** Of the process that computes; absent where others do. */
    inside?(): Promise<Inside | undefined>
  }
  readonly device: {
    readonly usage: Readonly<
      Record<string, { readonly turns: number; readonly ms: number; readonly waiting: number }>
    >
  }
}

export const createMetrics = ({ db, serving, device }: Counted): Metrics => {
  const register = new Registry()
  const registers = [register]
  collectDefaultMetrics({ register })

  const requests = new Histogram({
    name: 'luthier_http_request_duration_seconds',
    help: 'Time from a request to its last byte, by route and status; its count is the number of requests.',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.005, 0.02, 0.1, 0.5, 2, 10, 60],
    registers,
  })
  const vllm = (name: string, help: string, buckets: number[]) =>
    new Histogram({ name: `vllm:${name}`, help, buckets, registers })
  const timings = {
    first_token: vllm(
      'time_to_first_token_seconds',
      'From a request to the first text of its answer.',
      [0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    ),
    between_tokens: vllm(
      'inter_token_latency_seconds',
      'Between two pieces of one answer.',
      [0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5],
    ),
    queue: vllm(
      'request_queue_time_seconds',
      'From a request until its prompt is begun.',
      [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    ),
    request: vllm(
      'e2e_request_latency_seconds',
      'From a request to the end of its answer.',
      [0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120],
    ),
  }
  const steps = new Counter({
    name: 'luthier_training_steps_total',
    help: 'Optimizer steps kept by this process.',
    registers,
  })
  const trained = new Counter({
    name: 'luthier_training_tokens_total',
    help: 'Supervised tokens trained on by this process.',
    registers,
  })
  const rate = new Gauge({
    name: 'luthier_training_tokens_per_second',
    help: 'Supervised tokens a second of the running job, over its last step; 0 while none runs.',
    registers,
  })
  asked(registers, 'luthier_fine_tuning_jobs', 'Jobs in the database.', ['status'], async (set) => {
    for (const { status, n } of await jobsByStatus(db)) set({ status }, n)
  })
  asked(
    registers,
    'luthier_work',
    'Work in the database that has not ended: `ready` waits in the queue.',
    ['kind', 'state'],
    async (set) => {
      for (const { kind, state, n } of await workByState(db)) set({ kind, state }, n)
    },
  )
  asked(registers, 'luthier_database_connections', 'Of the pool.', ['state'], async (set) => {
    set({ state: 'open' }, db.totalCount)
    set({ state: 'idle' }, db.idleCount)
    set({ state: 'waited_for' }, db.waitingCount)
  })
  asked(registers, 'luthier_inference_choices', 'Under way or waiting.', [], async (set) =>
    set({}, serving.taken),
  )
  asked(
    registers,
    'luthier_inference_tokens_total',
    'Tokens of prompts read and of answers written.',
    ['kind'],
    async (set) => {
      set({ kind: 'prompt' }, serving.usage.prompt_tokens)
      set({ kind: 'completion' }, serving.usage.completion_tokens)
    },
  )
  asked(registers, 'vllm:prompt_tokens_total', 'Tokens of prompts read.', [], async (set) =>
    set({}, serving.usage.prompt_tokens),
  )
  asked(registers, 'vllm:generation_tokens_total', 'Tokens of answers.', [], async (set) =>
    set({}, serving.usage.completion_tokens),
  )
  const inside = askedOnce(async () => serving.inside?.())
  for (const [name, help, value] of [
    ['vllm:num_requests_running', 'Choices that are read or decoded.', (i) => i.running],
    ['vllm:num_requests_waiting', 'Choices that wait for their turn.', (i) => i.waiting],
    ['vllm:prefix_cache_queries_total', 'Prompt tokens looked for.', (i) => i.prefixes.queries],
    ['vllm:prefix_cache_hits_total', 'Of them, found.', (i) => i.prefixes.hits],
    ['luthier_prefix_cache_bytes', 'What the prefix cache takes.', (i) => i.prefixes.bytes],
    ['luthier_prefix_cache_evictions_total', 'Blocks that had to go.', (i) => i.prefixes.evictions],
    ['luthier_adapters_resident', 'Adapters that answer at once.', (i) => i.adapters.adapters],
    ['luthier_adapters_resident_bytes', 'What they take.', (i) => i.adapters.bytes],
    ['luthier_decode_steps_total', 'Steps of decoding.', (i) => i.decode.steps],
    ['luthier_decode_rows_total', 'Rows of all those steps.', (i) => i.decode.rows],
    ['luthier_batch_slots', 'Rows that one step has at most.', (i) => i.decode.width],
    [
      'vllm:spec_decode_num_draft_tokens_total',
      'Tokens guessed by prompt lookup.',
      (i) => i.guesses.drafted,
    ],
    [
      'vllm:spec_decode_num_accepted_tokens_total',
      'Of them, drawn by the sampler.',
      (i) => i.guesses.accepted,
    ],
  ] satisfies [string, string, (inside: Inside) => number][])
    asked(registers, name, help, [], async (set) => {
      const now = await inside()
      if (now) set({}, value(now))
    })
  for (const [name, help, value] of [
    ['turns_total', 'Turns on the device.', 'turns'],
    ['seconds_total', 'Time the device was held.', 'ms'],
    ['waiting', 'Who waits for the device.', 'waiting'],
  ] as const)
    asked(registers, `luthier_device_${name}`, help, ['claimant'], async (set) => {
      for (const [claimant, usage] of Object.entries(device.usage))
        set({ claimant }, value === 'ms' ? usage.ms / 1000 : usage[value])
    })

  return {
    page: async () => ({ content_type: register.contentType, text: await register.metrics() }),
    answered: ({ seconds, ...labels }) => requests.observe(labels, seconds),
    timed: (what, seconds) => timings[what].observe(seconds),
    stepped: ({ tokens, seconds }) => {
      steps.inc()
      trained.inc(tokens)
      rate.set(seconds > 0 ? tokens / seconds : 0)
    },
    rested: () => rate.set(0),
  }
}

/** Many numbers of one page come of one question. */
function askedOnce<T>(ask: () => Promise<T>): () => Promise<T> {
  let asking: Promise<T> | undefined
  return () => {
    asking ??= ask().finally(() => {
      asking = undefined
    })
    return asking
  }
}

type Set = (labels: Record<string, string>, value: number) => void

/**
 * A number that is asked for when the page is read; one that cannot be told just now is left out. What is named
 * `…_total` only grows.
 */
const asked = (
  registers: Registry[],
  name: string,
  help: string,
  labelNames: string[],
  ask: (set: Set) => Promise<void>,
): void => {
  const about = { name, help, labelNames, registers }
  if (name.endsWith('_total'))
    new Counter({
      ...about,
      async collect() {
        this.reset()
        await ask((labels, value) => this.inc(labels, value)).catch(() => this.reset())
      },
    })
  else
    new Gauge({
      ...about,
      async collect() {
        this.reset()
        await ask((labels, value) => this.set(labels, value)).catch(() => this.reset())
      },
    })
}
