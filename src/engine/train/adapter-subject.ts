// An adapter over a frozen model as what a job trains.

import { input } from '../graph/graph.ts'
import {
  adapterFromFlat,
  bindAdapter,
  flatFromAdapter,
  initialAdapter,
  type LoraLayout,
  loraLayout,
  partsOf,
} from '../models/adapters.ts'
import { setMagnitudes } from '../models/dora.ts'
import { elements, float32 } from '../tensor.ts'
import { readAdapter, writeAdapter, writeAdapterConfig } from '../weights/adapter.ts'
import type { AdapterMethod } from './methods/method.ts'
import type { Subject, SubjectSetup } from './subject.ts'
import type { RateGroup } from './trainer.ts'

/** LoRA and its kin, with the method's own objective. */
export function adapterSubject(
  method: Pick<AdapterMethod, 'objective'>,
  { checkpoint, weights, plan, seed, initial }: SubjectSetup,
): Subject {
  const layout = loraLayout(weights, plan.lora)
  const earlier = initial === undefined ? undefined : () => readInitial(initial, layout)
  return {
    parameters: layout.parameters,

    async start() {
      if (earlier) return earlier()
      const adapter = initialAdapter(layout, seed)
      await setMagnitudes({ weights, layout, threads: plan.threads }, adapter)
      return adapter
    },

    objective: method.objective({
      weights,
      layout,
      shape: {
        rows: plan.rows,
        length: plan.row_length,
        ...(plan.keep && { keep: plan.keep }),
      },
      plan,
      initial: earlier,
    }),

    tuned: {
      weights: (base) =>
        base.adapted(bindAdapter(layout, input('adapter', 'float32', [layout.parameters])).loras),
      feeds: (flat) => ({ adapter: float32([layout.parameters], flat) }),
    },

    rates: loraRates(layout, plan.loraplus_lr_ratio ?? 1),

    files(flat) {
      const adapter = adapterFromFlat(layout, flat, checkpoint.id)
      return { adapter: writeAdapter(adapter), adapter_config: writeAdapterConfig(adapter.config) }
    },
  }
}

/** The adapter that training goes on from; throws where the plan is for another rank, scale or set of targets. */
async function readInitial(path: string, layout: LoraLayout): Promise<Float32Array> {
  const adapter = await readAdapter(path)
  const { r, lora_alpha, use_rslora } = adapter.config
  const { rank, alpha } = layout.config
  if (r !== rank || lora_alpha !== alpha)
    throw new Error(
      `initial adapter: rank ${r} and alpha ${lora_alpha}, the plan has ${rank} and ${alpha}`,
    )
  if (use_rslora !== (layout.config.use_rslora ?? false))
    throw new Error(`initial adapter: use_rslora is ${use_rslora}, the plan has ${!use_rslora}`)
  return flatFromAdapter(layout, adapter)
}

/** LoRA+ (arXiv 2402.12354): what is not an A learns at so many times the rate. */
export const loraRates = (layout: LoraLayout, ratio: number): RateGroup[] =>
  partsOf(layout).map(({ kind, dims, from }) => ({
    from,
    to: from + elements(dims),
    ratio: kind === 'lora_A' ? 1 : ratio,
  }))
