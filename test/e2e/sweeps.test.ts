// A sweep through the API of a real server, which is killed in the middle of it.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { type Reply, requestsTo } from '../support/requests.ts'
import { shared } from '../support/shared.ts'

const stories = shared('models/stories260k')
const banking = shared('data/banking77')
const INTENTS = [
  'card_arrival',
  'exchange_rate',
  'lost_or_stolen_card',
  'top_up_failed',
  'age_limit',
  'cash_withdrawal_charge',
  'pin_blocked',
  'terminate_account',
  'edit_personal_details',
  'atm_support',
]

describe.skipIf(stories.missing || banking.missing)('a sweep', () => {
  let server: LuthierServer
  beforeAll(async () => {
    server = await startLuthier(makeHome({ stories260k: stories.path }))
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  const { ask, until, upload } = requestsTo(() => server)

  function intents(from: number, to: number): Promise<string> {
    const csv = readFileSync(join(banking.path, 'train.csv'), 'utf8').split('\n').slice(1)
    const rows = INTENTS.flatMap((intent) =>
      csv
        .filter((line) => line.trim().endsWith(`,${intent}`))
        .slice(from, to)
        .map((line) => ({
          prompt: `${line.trim().slice(0, -intent.length - 1)} Intent:`,
          completion: ` ${intent.replaceAll('_', ' ')}`,
        })),
    )
    return upload(rows)
  }

  /** Whether each job of a sweep is asked for with what its trial is said to have. */
  async function expectAsked(trials: Reply[]): Promise<void> {
    for (const { job_id, hyperparameters } of trials) {
      const { rank, ...point } = hyperparameters
      const { method } = await ask(`/fine_tuning/jobs/${job_id}`)
      expect(method.supervised.hyperparameters).toMatchObject({
        ...point,
        ...(rank !== undefined && { lora: { rank } }),
      })
    }
  }
  const lowest = async (job: string): Promise<number> => {
    const { data } = await ask(`/fine_tuning/jobs/${job}/events?limit=1000`)
    return Math.min(...data.flatMap((e: Reply) => e.data.full_valid_loss ?? []))
  }
  /** Steps that were trained since the server's last start. */
  async function trainedSteps(): Promise<number> {
    const page = await (await fetch(new URL('/metrics', server.baseURL))).text()
    return Number(/^luthier_training_steps_total (\d+)$/m.exec(page)![1])
  }

  test('finds at least what auto gives at four times its cost, though it is killed in the middle', async () => {
    const job = {
      model: 'stories260k',
      training_file: await intents(0, 12),
      validation_file: await intents(12, 18),
      seed: 2,
      suffix: 'swept',
    }
    const auto = await ask('/fine_tuning/jobs', job)
    await until(`/fine_tuning/jobs/${auto.id}`, ({ status }) => status === 'succeeded')
    const { data: steps } = await ask(`/fine_tuning/jobs/${auto.id}/events?limit=1000`)
    const cost = Math.max(...steps.map((e: Reply) => e.data.step ?? 0))

    const search = { learning_rate: { min: 5e-4, max: 2e-2 }, rank: { values: [4, 8, 16] } }
    const { id } = await ask('/fine_tuning/alpha/sweeps', { job, search, seed: 1 })
    const url = `/fine_tuning/alpha/sweeps/${id}`
    await until(url, ({ trials }) => trials.length >= 4)
    await sleep(1500)
    await server.kill()
    await server.start()
    await until(url, ({ trials }) => trials.some((t: Reply) => t.status === 'dropped'))
    await server.kill()
    await server.start()
    const sweep = await until(url, ({ status }) => status !== 'running')

    expect(sweep).toMatchObject({ status: 'succeeded', error: null })
    expect(sweep.trials.map((t: Reply) => t.rungs.length).sort()).toEqual([1, 1, 1, 2, 2, 3, 3])
    expect(sweep.steps).toBeLessThanOrEqual(4 * cost)
    expect(sweep.trials[0].hyperparameters).toEqual({})
    const points = sweep.trials.slice(1).map((t: Reply) => t.hyperparameters)
    for (const { learning_rate, rank, ...others } of points) {
      expect(others).toEqual({})
      expect(learning_rate).toBeGreaterThanOrEqual(search.learning_rate.min)
      expect(learning_rate).toBeLessThanOrEqual(search.learning_rate.max)
      expect(search.rank.values).toContain(rank)
    }
    expect(new Set(points.map((p: Reply) => p.learning_rate)).size).toBe(6)
    await expectAsked(sweep.trials)
    // Half of them go on, and half again; two run to their end: each time those of the lowest loss.
    const ends = [cost / 4, cost / 2, cost].map(Math.ceil)
    for (const { rungs } of sweep.trials)
      expect(rungs.map(({ step }: Reply) => step)).toEqual(ends.slice(0, rungs.length))
    for (const rung of [0, 1]) {
      const losses = (more: boolean): number[] =>
        sweep.trials
          .filter(({ rungs }: Reply) =>
            more ? rungs.length > rung + 1 : rungs.length === rung + 1,
          )
          .map(({ rungs }: Reply) => rungs[rung].valid_loss)
      expect(Math.max(...losses(true))).toBeLessThanOrEqual(Math.min(...losses(false)))
    }
    const won = sweep.trials.filter((t: Reply) => t.status === 'won')
    expect(won.map((t: Reply) => t.job_id)).toEqual([sweep.winner])
    const finals = sweep.trials.flatMap(({ rungs }: Reply) => rungs[2]?.valid_loss ?? [])
    expect(await lowest(sweep.winner)).toBe(Math.min(...finals))
    expect(Math.min(...finals)).toBeLessThanOrEqual(await lowest(auto.id))
    // The jobs that went on after the last kill did so from their first comparison, not from nothing.
    const rest = sweep.trials.map(({ rungs }: Reply) => rungs.at(-1).step - rungs[0].step)
    expect(await trainedSteps()).toBeLessThanOrEqual(rest.reduce((a: number, b: number) => a + b))

    const jobs = await Promise.all(
      sweep.trials.map((t: Reply) => ask(`/fine_tuning/jobs/${t.job_id}`)),
    )
    const winner = jobs.find((j: Reply) => j.id === sweep.winner)
    const { data: models } = await ask('/models')
    const swept = models.map((m: Reply) => m.id).filter((m: string) => m.includes(':swept:'))
    const { fine_tuned_model } = await ask(`/fine_tuning/jobs/${auto.id}`)
    expect(swept.toSorted()).toEqual([fine_tuned_model, winner.fine_tuned_model].toSorted())
    expect(jobs.filter((j: Reply) => j.status === 'succeeded')).toHaveLength(2)
    expect(jobs.filter((j: Reply) => j.status === 'cancelled')).toHaveLength(5)
    const { data: events } = await ask(`${url}/events?limit=100`)
    const messages = events.map((e: Reply) => e.message).reverse()
    expect(messages.filter((m: string) => m.startsWith('Trial '))).toHaveLength(7)
    expect(messages.filter((m: string) => m.startsWith('After '))).toHaveLength(2)
    expect(messages.at(-1)).toContain(winner.fine_tuned_model)
  })

  test('over epochs and batch sizes keeps within its budget of steps', async () => {
    const hyperparameters = { n_epochs: 2, batch_size: 4 }
    const job = {
      model: 'stories260k',
      training_file: await intents(0, 2),
      validation_file: await intents(2, 3),
      method: { type: 'supervised', supervised: { hyperparameters } },
    }
    const search = { n_epochs: { values: [1, 2] }, batch_size: { values: [4, 8] } }
    const request = { job, search, max_trials: 4, seed: 1 }
    // One trial has ten steps, and as many are too few for two.
    const [small, { id }] = [
      await ask('/fine_tuning/alpha/sweeps', { ...request, budget_steps: 10 }),
      await ask('/fine_tuning/alpha/sweeps', { ...request, budget_steps: 15 }),
    ]
    const url = '/fine_tuning/alpha/sweeps'
    const over = (name: string) => until(`${url}/${name}`, ({ status }) => status !== 'running')
    expect((await over(small.id)).error).toMatchObject({ param: 'budget_steps' })
    const sweep = await over(id)
    expect([sweep.status, sweep.error]).toEqual(['succeeded', null])
    expect(sweep.trials).toHaveLength(2)
    expect(sweep.steps).toBeLessThanOrEqual(15)
    for (const { hyperparameters } of sweep.trials.slice(1)) {
      expect([1, 2]).toContain(hyperparameters.n_epochs)
      expect([4, 8]).toContain(hyperparameters.batch_size)
    }
    await expectAsked(sweep.trials)
  })

  test('that is cancelled ends its jobs too', async () => {
    const data = { validation_split: 0.2 }
    const job = { model: 'stories260k', training_file: await intents(0, 6), luthier: { data } }
    const search = { batch_size: { values: [1, 2, 4] } }
    const { id } = await ask('/fine_tuning/alpha/sweeps', { job, search })
    const url = `/fine_tuning/alpha/sweeps/${id}`
    const { trials } = await until(url, ({ trials }) => trials.length > 0)
    expect(await ask(`${url}/cancel`, {})).toMatchObject({ status: 'cancelled' })
    expect(await ask(`/fine_tuning/jobs/${trials[0].job_id}`)).toMatchObject({
      status: 'cancelled',
    })
    expect((await ask('/fine_tuning/alpha/sweeps?limit=1')).data[0].id).toBe(id)
    await expect(ask(`${url}/cancel`, {})).rejects.toThrow('invalid_sweep_state')
  })
})
