// The table `work`: who may work on what, until when. One statement a transition, so that two cannot win.

import { type Db, type Pool, transaction } from './pool.ts'

export type WorkState = 'ready' | 'running' | 'paused' | 'ended'

/** A claim that holds: its token is asked for in every write. */
export interface Lease {
  /** The id of what is worked on. */
  id: string
  kind: string
  project_id: string
  /** Claims since something was last committed, this one included. */
  attempt: number
  /** Errors of the work itself since something was last committed. */
  faults: number
  lease_token: number
  /** The holder before did not give it back: it died, or was taken for dead. */
  interrupted: boolean
  /** The work is to be paused as soon as what it has is committed. */
  pause_requested: boolean
  /** How many devices it takes at once. */
  devices: number
}

/** What a worker has to work with. */
export interface Room {
  /** `cpu`, … */
  device: string
  /** How many of them in all. */
  devices: number
  /** How many nothing works on. */
  free: number
}

/** The work was given to another, cancelled or ended: what the old holder knows counts no more. */
export class LeaseLost extends Error {
  override readonly name = 'LeaseLost'

  constructor(id: string) {
    super(`The lease on ${id} is lost.`)
  }
}

/** The channel that hints at new and at cancelled work; the payload is the work's id. */
export const WORK_CHANNEL = 'work'

// The advisory lock of the claim; any number, as long as nothing else here uses it.
const CLAIM = 7_032_001

/** Puts work in line; workers hear of it when the transaction commits. */
export async function insertWork(
  tx: Db,
  work: { id: string; kind: string; project_id: string; priority?: number; devices?: number },
): Promise<void> {
  await tx.query(
    'insert into work (id, kind, project_id, priority, devices) values ($1, $2, $3, $4, $5)',
    [work.id, work.kind, work.project_id, work.priority ?? 0, work.devices ?? 1],
  )
  await hint(tx, work.id)
}

/** Settles the kind of device that the work is done on, for this claim and every later one. */
export const setWorkDevice = async (tx: Db, id: string, device: string): Promise<void> => {
  await tx.query('update work set device = $2 where id = $1', [id, device])
}

const ONE_CPU: Room = { device: 'cpu', devices: 1, free: 1 }

/**
 * Takes the next work of these kinds that there is room for, or none; projects with less running go first. Work that
 * this worker has the devices for, but not free, is waited for: smaller work would else pass it by for ever.
 */
export const claimWork = (
  db: Pool,
  owner: string,
  kinds: readonly string[],
  lease_seconds: number,
  { device, devices, free }: Room = ONE_CPU,
): Promise<Lease | undefined> =>
  transaction(db, async (tx) => {
    // In a statement of its own: the next one must see what the lock's last holder did.
    await tx.query('select pg_advisory_xact_lock($1)', [CLAIM])
    const { rows } = await tx.query<Lease>(
      `with busy as (
         select project_id, count(*) as n from work
          where state = 'running' and lease_until > clock_timestamp()
          group by project_id
       ), next as (
         select work.id, work.devices, state = 'running' as interrupted
           from work left join busy using (project_id)
          where kind = any ($2) and devices <= $4 and coalesce(device, $5) = $5
            and (state = 'ready' and not_before <= clock_timestamp()
                 or state = 'running' and lease_until <= clock_timestamp())
          order by coalesce(busy.n, 0), priority desc, seq
          limit 1
            for update of work skip locked
       )
       update work
          set state = 'running', lease_owner = $1, lease_token = lease_token + 1,
              lease_until = clock_timestamp() + make_interval(secs => $3), attempt = attempt + 1
         from next
        where work.id = next.id and next.devices <= $6
        returning work.id, kind, project_id, attempt, faults, lease_token, interrupted,
                  pause_requested, work.devices`,
      [owner, kinds, lease_seconds, devices, device, free],
    )
    return rows[0]
  })

/** Holds on for another term and hears what is wished meanwhile; undefined when the lease is no longer this one. */
export async function renewLease(
  db: Db,
  lease: Lease,
  lease_seconds: number,
): Promise<Pick<Lease, 'pause_requested'> | undefined> {
  const { rows } = await db.query<Pick<Lease, 'pause_requested'>>(
    `update work set lease_until = clock_timestamp() + make_interval(secs => $3)
      where id = $1 and lease_token = $2 and state = 'running'
      returning pause_requested`,
    [lease.id, lease.lease_token, lease_seconds],
  )
  return rows[0]
}

/** First statement of every transaction that writes for a holder: nobody else may until it commits. */
export async function holdLease(tx: Db, lease: Lease): Promise<void> {
  const { rowCount } = await tx.query(
    `select from work where id = $1 and lease_token = $2 and state = 'running' for no key update`,
    [lease.id, lease.lease_token],
  )
  if (rowCount !== 1) throw new LeaseLost(lease.id)
}

/** Something that will not have to be done again is committed: the counts of mishaps start anew. */
export async function noteProgress(tx: Db, lease: Lease): Promise<void> {
  await tx.query(
    `update work set attempt = 0, faults = 0
      where id = $1 and lease_token = $2 and state = 'running'`,
    [lease.id, lease.lease_token],
  )
}

/** Errors of the work itself since something was last committed: fewer than the claim knew, once something was. */
export async function faultsOf(db: Db, lease: Lease): Promise<number> {
  const { rows } = await db.query<{ faults: number }>(
    `select faults from work where id = $1 and lease_token = $2 and state = 'running'`,
    [lease.id, lease.lease_token],
  )
  if (!rows[0]) throw new LeaseLost(lease.id)
  return rows[0].faults
}

/** Gives work back for the next claim: after a stop at once, otherwise when `delay_seconds` are over. */
export async function releaseLease(
  tx: Db,
  lease: Lease,
  after?: { fault: boolean; delay_seconds: number },
): Promise<void> {
  const { rowCount } = await tx.query(
    `update work
        set state = 'ready', lease_owner = null, lease_until = null,
            attempt = case when $3 then attempt else 0 end,
            faults = faults + case when $3 then 1 else 0 end,
            not_before = clock_timestamp() + make_interval(secs => $4)
      where id = $1 and lease_token = $2 and state = 'running'`,
    [lease.id, lease.lease_token, after?.fault ?? false, after?.delay_seconds ?? 0],
  )
  if (rowCount !== 1) throw new LeaseLost(lease.id)
  if (!after) await hint(tx, lease.id)
}

/** The holder is done with it. */
export async function endWork(tx: Db, lease: Lease): Promise<void> {
  const { rowCount } = await tx.query(
    `update work set state = 'ended', lease_owner = null, lease_until = null
      where id = $1 and lease_token = $2 and state = 'running'`,
    [lease.id, lease.lease_token],
  )
  if (rowCount !== 1) throw new LeaseLost(lease.id)
}

/** Asks whoever holds the work, or will next, to pause it. */
export async function requestPause(tx: Db, id: string): Promise<void> {
  await tx.query(
    `update work set pause_requested = true where id = $1 and state in ('ready', 'running')`,
    [id],
  )
  await hint(tx, id)
}

/** The holder has committed what it had, and the work rests until it is resumed. */
export async function pauseWork(tx: Db, lease: Lease): Promise<void> {
  const { rowCount } = await tx.query(
    `update work
        set state = 'paused', pause_requested = false, lease_owner = null, lease_until = null,
            attempt = 0, faults = 0
      where id = $1 and lease_token = $2 and state = 'running'`,
    [lease.id, lease.lease_token],
  )
  if (rowCount !== 1) throw new LeaseLost(lease.id)
}

/** Puts paused work in line again. */
export async function resumeWork(tx: Db, id: string): Promise<void> {
  await tx.query(`update work set state = 'ready' where id = $1 and state = 'paused'`, [id])
  await hint(tx, id)
}

/** Ends work whoever holds it: from here on its holder can write nothing. */
export async function cancelWork(tx: Db, id: string): Promise<boolean> {
  const { rowCount } = await tx.query(
    `update work
        set state = 'ended', lease_owner = null, lease_until = null, lease_token = lease_token + 1
      where id = $1 and state <> 'ended'`,
    [id],
  )
  if (rowCount === 1) await hint(tx, id)
  return rowCount === 1
}

/** Forgets work that is ended, with all that referred to it gone before. */
export async function deleteWork(tx: Db, ids: readonly string[]): Promise<void> {
  await tx.query('delete from work where id = any ($1)', [ids])
}

/** Live leases whose owner's name begins so. */
export async function leasesOf(
  db: Db,
  owner_prefix: string,
): Promise<Array<{ id: string; lease_token: number; lease_owner: string }>> {
  const { rows } = await db.query<{ id: string; lease_token: number; lease_owner: string }>(
    `select id, lease_token, lease_owner from work
      where state = 'running' and lease_until > clock_timestamp() and starts_with(lease_owner, $1)`,
    [owner_prefix],
  )
  return rows
}

/** Lets a lease expire now, because its owner is known to be dead. */
export async function expireLease(
  db: Db,
  lease: { id: string; lease_token: number },
): Promise<void> {
  await db.query(
    `update work set lease_until = clock_timestamp()
      where id = $1 and lease_token = $2 and state = 'running'`,
    [lease.id, lease.lease_token],
  )
}

/** How much work of all projects is under way or waits, by kind. */
export async function workByState(db: Db): Promise<{ kind: string; state: string; n: number }[]> {
  const { rows } = await db.query<{ kind: string; state: string; n: number }>(
    `select kind, state, count(*) as n from work where state <> 'ended' group by kind, state`,
  )
  return rows
}

const hint = (tx: Db, id: string) => tx.query('select pg_notify($1, $2)', [WORK_CHANNEL, id])
