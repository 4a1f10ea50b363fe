// What a plan will take on this machine: memory from its shapes, time from its cost and from how fast the base was here.

import { capabilitiesOf } from '../runtime/device.ts'
import type { TakeTurn } from '../runtime/thread.ts'
import type { Checkpoint } from '../weights/checkpoint.ts'
import { type Costed, evaluationCost, stepCost } from './cost.ts'
import { peakMemory } from './memory.ts'
import { keptPrecision, LEAST_GAIN, type Precision } from './precision.ts'
import type { Forecast, Plan } from './request.ts'
import { knownThroughput, measureThroughput, type Throughput } from './throughput.ts'
import { type ExampleSizes, type Workload, workloadOf } from './workload.ts'

export interface ForecastInput {
  readonly checkpoint: Checkpoint
  /** Folder of converted weights; absent: no time is forecast. */
  readonly cache: string | undefined
  /** Whether a speed that is not known is measured. */
  readonly measure: boolean
  readonly plan: Plan
  readonly parameters: number
  readonly reference: boolean
  readonly training: ExampleSizes
  readonly validation: ExampleSizes | undefined
}

export async function forecastOf(input: ForecastInput, turn: TakeTurn): Promise<Forecast> {
  const { checkpoint, plan, parameters, reference, training, validation } = input
  const { config } = checkpoint
  const { adapter, keep = 'everything', devices } = plan
  const work = workloadOf(plan, config, training)
  const planned: Precision = plan.precision === 'int8' ? 'int8' : 'fp32'
  const memory_bytes = peakMemory(
    {
      config,
      parameters,
      keep,
      devices,
      precision: planned,
      whole: adapter === 'none',
      reference,
    },
    work,
  )
  const timed: Timed[] = []
  const speeds = await speedsOf(input, turn)
  for (const precision of BOTH) {
    const speed = speeds[precision]?.seconds
    if (speed === undefined) continue
    const costed = { ...plan, config, parameters, precision, reference }
    const checking = validation ? validationCost(costed, plan, validation) : 0
    timed.push({
      precision,
      step: speed * stepCost(costed, work),
      validating: speed * checking,
    })
  }
  const [fp32, int8] = [timed.find(of('fp32')), timed.find(of('int8'))]
  // As the trial chooses, but for the gradient's likeness, which only a trial sees.
  const chosen = fp32 && int8 ? (fp32.step >= LEAST_GAIN * int8.step ? int8 : fp32) : (int8 ?? fp32)
  if (!chosen) return { memory_bytes, step_seconds: null, seconds: null }
  const { step, validating } = chosen
  return { memory_bytes, step_seconds: step, seconds: plan.total_steps * step + validating }
}

const BOTH: readonly Precision[] = ['fp32', 'int8']

interface Timed {
  readonly precision: Precision
  /** Seconds of one step, and of all validation of the job. */
  readonly step: number
  readonly validating: number
}

const of =
  (precision: Precision) =>
  (timed: Timed): boolean =>
    timed.precision === precision

/** By precision, those that the plan may be trained in, as far as they are known. */
export type Speeds = Partial<Record<Precision, Throughput>>

export async function speedsOf(
  {
    checkpoint,
    cache,
    measure,
    plan,
  }: Pick<ForecastInput, 'checkpoint' | 'cache' | 'measure' | 'plan'>,
  turn: TakeTurn,
): Promise<Speeds> {
  const speeds: Speeds = {}
  if (cache === undefined) return speeds
  const { precisions } = capabilitiesOf(plan.device ?? 'cpu')
  const possible = BOTH.filter((precision) => precisions.includes(precision))
  for (const precision of plan.precision === 'auto' ? possible : [keptPrecision(plan.precision)]) {
    const of = { checkpoint, cache, plan, precision }
    const speed =
      (await knownThroughput(of)) ?? (measure ? await measureThroughput(of, turn) : undefined)
    if (speed) speeds[precision] = speed
  }
  return speeds
}

/** Examples that are packed together when all are validated, about. */
const TOGETHER = 512
/** Batches that are validated between epochs' ends, at most. */
const BETWEEN = 20

/** All validation of a job: every row at each epoch's end, a batch now and then. */
function validationCost(costed: Costed, plan: Plan, sizes: ExampleSizes): number {
  const rows = sizes.lengths.length
  const together = Math.min(rows, TOGETHER)
  const all = workloadOf({ ...plan, batch_size: together }, costed.config, sizes)
  const one = workloadOf(plan, costed.config, sizes)
  const cost = (work: Workload) => work.microBatches * evaluationCost(costed, work)
  const batches = Math.min(BETWEEN, plan.total_steps)
  return plan.n_epochs * (rows / together) * cost(all) + batches * cost(one)
}
