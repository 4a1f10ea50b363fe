import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { transaction } from '../../../src/service/db/pool.ts'
import {
  cancelWork,
  claimWork,
  endWork,
  holdLease,
  insertWork,
  type Lease,
  LeaseLost,
  noteProgress,
  pauseWork,
  releaseLease,
  renewLease,
  requestPause,
  resumeWork,
  setWorkDevice,
} from '../../../src/service/db/work.ts'
import { insertWorkEvent, listWorkEvents } from '../../../src/service/db/work-events.ts'
import { type Outcome, type WorkKind, WorkPauses } from '../../../src/service/work/kind.ts'
import { isProvablyDead, thisProcess } from '../../../src/service/work/owner.ts'
import { startWorker, type WorkerOptions } from '../../../src/service/work/worker.ts'
import { testLog } from '../../support/log.ts'
import { freshDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await freshDatabase()
  await database.db.query(
    `insert into organizations (id, slug, name) values ('org-1', 'one', 'One')`,
  )
  await database.db.query(
    `insert into projects (id, organization_id, name) values ('p1', 'org-1', 'P'), ('p2', 'org-1', 'Q')`,
  )
})
afterAll(() => database?.[Symbol.asyncDispose]())
beforeEach(() => database.db.query('truncate work cascade'))

const KIND = 'test.kind'

const add = (id: string, project_id = 'p1', devices = 1) =>
  insertWork(database.db, { id, kind: KIND, project_id, devices })

async function claim(lease_seconds = 30): Promise<Lease> {
  const lease = await claimWork(database.db, 'me', [KIND], lease_seconds)
  if (!lease) throw new Error('nothing to claim')
  return lease
}

const state = async (id: string) => {
  const { rows } = await database.db.query(
    'select state, attempt, faults from work where id = $1',
    [id],
  )
  return rows[0]
}

test('eight claimers take every piece of work, none twice', async () => {
  for (let i = 0; i < 60; i++) await add(`w${i}`)
  const taken: string[] = []
  const claimer = async (name: string) => {
    while (true) {
      const lease = await claimWork(database.db, name, [KIND], 30)
      if (!lease) return
      taken.push(lease.id)
    }
  }
  await Promise.all(Array.from({ length: 8 }, (_, i) => claimer(`claimer-${i}`)))
  expect(taken).toHaveLength(60)
  expect(new Set(taken).size).toBe(60)
})

test('projects take turns', async () => {
  for (const id of ['a1', 'a2', 'a3']) await add(id, 'p1')
  for (const id of ['b1', 'b2']) await add(id, 'p2')
  const order = []
  for (let i = 0; i < 5; i++) order.push((await claim()).id)
  expect(order).toEqual(['a1', 'b1', 'a2', 'b2', 'a3'])
})

test('work of a kind that the claimer does not do stays where it is', async () => {
  await add('w')
  expect(await claimWork(database.db, 'me', ['other'], 30)).toBeUndefined()
})

test('an expired lease is claimed anew, and its stale owner can write nothing', async () => {
  await add('w')
  const stale = await claim(0.05)
  expect(await claimWork(database.db, 'me', [KIND], 30)).toBeUndefined()
  await sleep(100)
  const fresh = await claim()
  expect(stale.interrupted).toBe(false)
  expect(fresh).toMatchObject({
    id: 'w',
    attempt: 2,
    interrupted: true,
    lease_token: stale.lease_token + 1,
  })
  expect(await renewLease(database.db, stale, 30)).toBeUndefined()
  for (const write of [holdLease, endWork, releaseLease])
    await expect(transaction(database.db, (tx) => write(tx, stale))).rejects.toThrow(LeaseLost)
  expect(await renewLease(database.db, fresh, 30)).toBeDefined()
})

test('a holder that was only late goes on when nobody took its work', async () => {
  await add('w')
  const lease = await claim(0.01)
  await sleep(30)
  expect(await renewLease(database.db, lease, 30)).toEqual({ pause_requested: false })
})

test('cancelling ends work at once, whoever holds it', async () => {
  await add('w')
  const lease = await claim()
  expect(await transaction(database.db, (tx) => cancelWork(tx, 'w'))).toBe(true)
  await expect(transaction(database.db, (tx) => holdLease(tx, lease))).rejects.toThrow(LeaseLost)
  expect(await transaction(database.db, (tx) => cancelWork(tx, 'w'))).toBe(false)
  expect(await claimWork(database.db, 'me', [KIND], 30)).toBeUndefined()
})

test('a cancel waits for the transaction of the holder that came first', async () => {
  await add('w')
  const lease = await claim()
  const order: string[] = []
  const writing = transaction(database.db, async (tx) => {
    await holdLease(tx, lease)
    await sleep(100)
    order.push('written')
  })
  await sleep(30)
  await transaction(database.db, (tx) => cancelWork(tx, 'w'))
  order.push('cancelled')
  await writing
  expect(order).toEqual(['written', 'cancelled'])
})

test('mishaps are counted until something is committed', async () => {
  await add('w')
  const first = await claim()
  await releaseLease(database.db, first, { fault: true, delay_seconds: 0 })
  expect(await state('w')).toEqual({ state: 'ready', attempt: 1, faults: 1 })
  const second = await claim()
  expect(second).toMatchObject({ attempt: 2, faults: 1 })
  await noteProgress(database.db, second)
  expect(await state('w')).toEqual({ state: 'running', attempt: 0, faults: 0 })
})

test('an event is told once, and the log is read newest first', async () => {
  await add('w')
  for (const n of [1, 2, 3, 2])
    await insertWorkEvent(database.db, {
      id: `ftevent-${n}-${Math.random()}`,
      work_id: 'w',
      dedupe_key: `step-${n}`,
      message: `Step ${n}`,
    })
  const first = await listWorkEvents(database.db, { work_id: 'w', limit: 2 })
  expect(first.map((event) => event.message)).toEqual(['Step 3', 'Step 2'])
  const rest = await listWorkEvents(database.db, { work_id: 'w', limit: 2, after: first[1]?.id })
  expect(rest.map((event) => event.message)).toEqual(['Step 1'])
})

const worker = (run: WorkKind['run'], options: Partial<WorkerOptions> = {}) => {
  const failed: unknown[] = []
  const kind: WorkKind = {
    kind: KIND,
    run,
    fail: async (lease, cause) => {
      failed.push(cause)
      await endWork(database.db, lease)
    },
  }
  const started = startWorker({
    db: database.db,
    log: testLog,
    kinds: [kind],
    lease_seconds: 2,
    poll_seconds: 60,
    ...options,
  })
  return { ...started, failed }
}

async function until(done: () => Promise<boolean> | boolean) {
  for (let waited = 0; waited < 10_000; waited += 20) {
    if (await done()) return
    await sleep(20)
  }
  throw new Error('It did not come to that within ten seconds.')
}

const untilAborted = (signal: AbortSignal) =>
  new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))

test('a worker hears of new work and of a cancel without polling', async () => {
  const reasons: unknown[] = []
  await using working = worker(async (_lease, signal): Promise<Outcome> => {
    await untilAborted(signal)
    reasons.push(signal.reason)
    throw signal.reason
  })
  await sleep(300)
  await add('w')
  await until(async () => (await state('w'))?.state === 'running')
  await transaction(database.db, (tx) => cancelWork(tx, 'w'))
  await until(() => reasons.length === 1)
  expect(reasons[0]).toBeInstanceOf(LeaseLost)
  expect(working.failed).toEqual([])
})

test('a worker that stops gives its work back for the next one to take at once', async () => {
  await add('w')
  const first = worker(async (_lease, signal) => {
    await untilAborted(signal)
    return { type: 'stopped' }
  })
  await until(async () => (await state('w'))?.state === 'running')
  await first.stop()
  expect(await state('w')).toEqual({ state: 'ready', attempt: 0, faults: 0 })
  await using _second = worker(async (lease) => {
    await endWork(database.db, lease)
    return { type: 'ended' }
  })
  await until(async () => (await state('w'))?.state === 'ended')
})

describe('devices', () => {
  const room = (devices: number, free = devices, device = 'cpu') => ({ device, devices, free })
  const claimIn = (given: ReturnType<typeof room>) =>
    claimWork(database.db, 'me', [KIND], 30, given)

  test('work that asks for more devices than a worker has is left to others', async () => {
    await add('large', 'p1', 2)
    await add('small')
    expect((await claimIn(room(1)))?.id).toBe('small')
    expect(await claimIn(room(1))).toBeUndefined()
    expect(await claimIn(room(2))).toMatchObject({ id: 'large', devices: 2 })
  })

  test('work that waits for devices to become free is not passed by', async () => {
    await add('large', 'p1', 2)
    await add('small')
    expect(await claimIn(room(2, 1))).toBeUndefined()
    expect((await claimIn(room(2, 2)))?.id).toBe('large')
  })

  test('once it is settled on which kind of device it is done, others leave it', async () => {
    await add('w')
    await transaction(database.db, (tx) => setWorkDevice(tx, 'w', 'webgpu'))
    expect(await claimIn(room(1))).toBeUndefined()
    expect((await claimIn(room(1, 1, 'webgpu')))?.id).toBe('w')
  })

  test('a worker with two works on two at once, and on the next when one has ended', async () => {
    const [ends, running] = [new Map<string, () => void>(), () => [...ends.keys()]]
    await using _ = worker(
      async (lease) => {
        await new Promise<void>((end) => ends.set(lease.id, end))
        ends.delete(lease.id)
        await endWork(database.db, lease)
        return { type: 'ended' }
      },
      { devices: { device: 'cpu', devices: 2 } },
    )
    for (const id of ['w1', 'w2', 'w3']) await add(id)
    await until(() => running().length === 2)
    await sleep(300)
    expect(running()).toEqual(['w1', 'w2'])
    ends.get('w1')!()
    await until(() => running().length === 2 && ends.has('w3'))
    for (const end of ends.values()) end()
    await until(async () => (await state('w3'))?.state === 'ended')
  })
})

test('a heartbeat keeps work that takes longer than its lease', async () => {
  await add('w')
  let runs = 0
  const run: WorkKind['run'] = async (lease) => {
    runs++
    await sleep(1500)
    await endWork(database.db, lease)
    return { type: 'ended' }
  }
  const options = { lease_seconds: 0.6, poll_seconds: 0.1 }
  await using _one = worker(run, options)
  await using _two = worker(run, options)
  await until(async () => (await state('w'))?.state === 'ended')
  expect(runs).toBe(1)
})

test('a pause reaches the holder at once, and the work rests until it is resumed', async () => {
  let runs = 0
  const run = async (lease: Lease, signal: AbortSignal): Promise<Outcome> => {
    runs++
    if (runs > 1) {
      await transaction(database.db, (tx) => endWork(tx, lease))
      return { type: 'ended' }
    }
    if (!signal.aborted) await once(signal, 'abort')
    expect(signal.reason).toBeInstanceOf(WorkPauses)
    await transaction(database.db, (tx) => pauseWork(tx, lease))
    return { type: 'paused' }
  }
  const fail = async () => {}
  await using _ = startWorker({
    db: database.db,
    log: testLog,
    kinds: [{ kind: KIND, run, fail }],
    poll_seconds: 60,
  })
  const until = async (wished: string) => {
    while ((await state('w'))?.state !== wished) await sleep(10)
  }
  await add('w')
  await until('running')
  await requestPause(database.db, 'w')
  await until('paused')
  await sleep(100)
  expect([(await state('w')).state, runs]).toEqual(['paused', 1])
  await resumeWork(database.db, 'w')
  await until('ended')
  expect(runs).toBe(2)
})

test('an error is tried again, and the third in a row fails the work', async () => {
  await add('w')
  let runs = 0
  await using working = worker(
    async () => {
      throw new Error(`error ${++runs}`)
    },
    { poll_seconds: 0.1 },
  )
  await until(() => working.failed.length > 0)
  expect(runs).toBe(3)
  expect(working.failed).toEqual([new Error('error 3')])
})

test('errors before something was committed do not count against those after it', async () => {
  await add('w')
  let runs = 0
  await using working = worker(
    async (lease) => {
      if (++runs === 3) await noteProgress(database.db, lease)
      throw new Error(`error ${runs}`)
    },
    { poll_seconds: 0.1 },
  )
  await until(() => working.failed.length > 0)
  expect(working.failed).toEqual([new Error('error 5')])
})

test('the lease of a process that is provably dead need not run out', async () => {
  const self = await thisProcess()
  if (self.neighbours === undefined) throw new Error('this system has no /proc')
  expect(await isProvablyDead(self.name, self)).toBe(false)

  const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)'])
  const { readFile } = await import('node:fs/promises')
  const stat = await readFile(`/proc/${child.pid}/stat`, 'utf8')
  const owner = `${self.neighbours}${child.pid}/${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]}`
  await add('w')
  await claimWork(database.db, owner, [KIND], 600)
  expect(await isProvablyDead(owner, self)).toBe(false)
  child.kill('SIGKILL')
  await new Promise((resolve) => child.on('exit', resolve))
  await using _worker = worker(async (lease) => {
    await endWork(database.db, lease)
    return { type: 'ended' }
  })
  await until(async () => (await state('w'))?.state === 'ended')
})

test('nothing is proved about a process of another machine', async () => {
  const self = await thisProcess()
  expect(await isProvablyDead('another-boot/pid:[1]/1/1', self)).toBe(false)
})
