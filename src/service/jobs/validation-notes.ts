// What is written down while the files of a job are judged, inside transactions that hold its lease.

import type { PreflightReport } from '../../engine/train/preflight-report.ts'
import type { Forecast, Plan } from '../../engine/train/request.ts'
import { changeJob, setPlan, setPreflight } from '../db/fine-tuning-jobs.ts'
import type { PoolClient } from '../db/pool.ts'
import { type Lease, setWorkDevice } from '../db/work.ts'
import { insertWorkEvent } from '../db/work-events.ts'
import { newId } from '../ids.ts'
import { tell } from '../work/events.ts'
import { eventText } from './event-texts.ts'

/** The files are fit: the plan, what is worth a warning, and that the job waits for its turn. */
export async function notePlan(
  tx: PoolClient,
  id: string,
  {
    plan,
    warnings,
    forecast,
  }: { plan: Plan; warnings: readonly string[]; forecast: Forecast | undefined },
): Promise<void> {
  await setPlan(tx, id, plan)
  await setWorkDevice(tx, id, plan.device ?? 'cpu')
  for (const [i, message] of warnings.entries())
    await insertWorkEvent(tx, {
      id: newId('ftevent-'),
      work_id: id,
      dedupe_key: `warning-${i}`,
      level: 'warn',
      message,
      data: { kind: 'data_warning' },
    })
  await changeJob(tx, id, 'files_validated')
  await tell(tx, id, 'validated', eventText.validated())
  await insertWorkEvent(tx, {
    id: newId('ftevent-'),
    work_id: id,
    dedupe_key: 'plan',
    message: `Training plan: ${plan.n_epochs} epoch(s), batch size ${plan.batch_size}, learning rate ${plan.learning_rate}, ${plan.total_steps} steps`,
    data: { kind: 'plan', reasons: plan.reasons, ...(forecast && { forecast }) },
  })
}

/** How far the judging has come. */
export async function noteJudging(
  tx: PoolClient,
  { id, lease_token }: Lease,
  { stage, rows }: { stage: string; rows: number },
): Promise<void> {
  await insertWorkEvent(tx, {
    id: newId('ftevent-'),
    work_id: id,
    dedupe_key: `judging-${lease_token}-${stage}-${rows}`,
    message: `Preflight: ${stage}, ${rows} so far`,
    data: { kind: 'preflight_progress', stage, rows },
  })
}

/** What the files are like. */
export async function noteReport(
  tx: PoolClient,
  id: string,
  report: PreflightReport,
): Promise<void> {
  const { ok, findings, text } = report
  const told = findings.filter(({ level }) => level !== 'info').length
  await setPreflight(tx, id, report)
  await insertWorkEvent(tx, {
    id: newId('ftevent-'),
    work_id: id,
    dedupe_key: 'preflight',
    level: told > 0 ? 'warn' : 'info',
    message: told > 0 ? `Preflight: ${told} finding(s)` : 'Preflight: nothing found',
    data: { kind: 'preflight', ok, findings, text },
  })
}
