// The table `fine_tuning_row_losses`: how training rows did, some at a time, packed as they lie in memory.

import type { RowLosses } from '../../engine/train/request.ts'
import type { Db } from './pool.ts'

/** Written with the state of that step; where nothing was learned since the last one, nothing is. */
export async function insertRowLosses(
  tx: Db,
  job_id: string,
  step: number,
  { epoch, lines, losses }: RowLosses,
): Promise<void> {
  if (lines.length === 0) return
  await tx.query(
    `insert into fine_tuning_row_losses (job_id, step, epoch, lines, losses) values ($1, $2, $3, $4, $5)
     on conflict (job_id, step) do update
        set epoch = excluded.epoch, lines = excluded.lines, losses = excluded.losses`,
    [job_id, step, epoch, bytesOf(lines), bytesOf(losses)],
  )
}

/** All that is known of the job's rows, in order. */
export async function listRowLosses(db: Db, job_id: string): Promise<RowLosses[]> {
  const { rows } = await db.query<{ epoch: number; lines: Buffer; losses: Buffer }>(
    'select epoch, lines, losses from fine_tuning_row_losses where job_id = $1 order by step',
    [job_id],
  )
  return rows.map(({ epoch, lines, losses }) => ({
    epoch,
    lines: new Int32Array(memoryOf(lines)),
    losses: new Float32Array(memoryOf(losses)),
  }))
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Int32Array | Float32Array): Buffer =>
  Buffer.from(buffer, byteOffset, byteLength)

/** A copy: what the driver gives need not lie where numbers of four bytes may. */
const memoryOf = (bytes: Buffer): ArrayBuffer => Uint8Array.from(bytes).buffer
