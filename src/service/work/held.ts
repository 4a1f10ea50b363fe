// Writes of whoever holds a piece of work.

import { type Pool, type PoolClient, transaction } from '../db/pool.ts'
import { holdLease, type Lease } from '../db/work.ts'
import { patiently } from './patience.ts'

/** One transaction, tried until it works or hopeless, in which nobody else holds the work. Throws `LeaseLost`. */
export const whileHeld = <T>(
  db: Pool,
  lease: Lease,
  body: (tx: PoolClient) => Promise<T>,
): Promise<T> =>
  patiently(() =>
    transaction(db, async (tx) => {
      await holdLease(tx, lease)
      return await body(tx)
    }),
  )
