// How long a micro-batch of a shape takes, by forecast: what a plan keeps below what others can wait for. Pure.

import type { TextShape } from '../datasets/text-batches.ts'
import type { ModelConfig } from '../weights/model-config.ts'
import { microBatchCost } from './cost.ts'
import { keptPrecision, LEAST_GAIN, type Precision } from './precision.ts'
import type { Plan } from './request.ts'
import { type ExampleSizes, workloadOf } from './workload.ts'

export interface Pace {
  /** What a micro-batch should take at most. */
  readonly seconds: number
  /** Seconds for a unit of cost, of each precision that the job may be trained in. */
  readonly speeds: Readonly<Partial<Record<Precision, number>>>
}

export interface Paced {
  readonly config: ModelConfig
  readonly batch_size: number
  readonly sizes: ExampleSizes
  /** Elements of the trained vector. */
  readonly parameters: number
  readonly precision: Plan['precision'] | undefined
  readonly adapter: 'none' | undefined
  readonly reference: boolean
}

/** From a shape to the seconds that one micro-batch of it takes; undefined where the speed is not known. */
export function microStepForecast(
  { speeds }: Pace,
  { config, batch_size, sizes, parameters, precision = 'auto', adapter, reference }: Paced,
): ((shape: TextShape) => number) | undefined {
  const possible: Precision[] = precision === 'auto' ? ['fp32', 'int8'] : [keptPrecision(precision)]
  const known = possible.filter((precision) => speeds[precision] !== undefined)
  if (known.length === 0) return undefined
  return ({ rows, length, long }) => {
    const plan = { rows, row_length: length, batch_size, ...(long && { long_rows: long }) }
    const work = workloadOf(plan, config, sizes)
    const [fp32, int8] = (['fp32', 'int8'] as const).map((precision) => {
      const costed = { config, parameters, precision, reference, ...(adapter && { adapter }) }
      return known.includes(precision)
        ? speeds[precision]! * microBatchCost(costed, work)
        : undefined
    })
    if (fp32 === undefined || int8 === undefined) return (fp32 ?? int8)!
    return fp32 >= LEAST_GAIN * int8 ? int8 : fp32 // as the trial will choose
  }
}
