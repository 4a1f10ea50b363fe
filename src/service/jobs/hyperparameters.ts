// Hyperparameters as sent, as kept, and as shown. Pure.

import { type MethodName, methodOf } from '../../engine/train/methods/index.ts'
import type { Hyperparameters, Plan } from '../../engine/train/request.ts'

/** As they may be sent: in `method`, or in the deprecated place at the top. */
export type SentHyperparameters = Partial<Hyperparameters>

/** What a job keeps: `method` wins over the deprecated place, and what neither says is the method's default. */
export const mergeHyperparameters = (
  name: MethodName,
  top: SentHyperparameters | undefined,
  method: SentHyperparameters | undefined,
): Hyperparameters => ({
  n_epochs: 'auto',
  batch_size: 'auto',
  learning_rate_multiplier: 'auto',
  ...methodOf(name).defaults,
  ...top,
  ...method,
})

/** A job's method with what was sent for it: `{ type: 'dpo', dpo: { hyperparameters } }`. */
export type JobMethod = { type: MethodName } & {
  [name in MethodName]?: { hyperparameters: Hyperparameters }
}

/** The hyperparameters of the method that the job names. */
export function hyperparametersOf(method: JobMethod): Hyperparameters {
  const own = method[method.type]
  if (!own) throw new Error(`A job of method ${method.type} has no hyperparameters for it.`)
  return own.hyperparameters
}

/** What a job shows: every `auto` becomes the plan's number once there is a plan; the rest stays as sent. */
export const resolvedHyperparameters = (
  kept: Hyperparameters,
  plan:
    | (Pick<Plan, 'n_epochs' | 'batch_size' | 'learning_rate_multiplier' | 'precision' | 'beta'> & {
        lora?: Pick<Plan['lora'], 'rank'>
      })
    | null,
): Hyperparameters =>
  plan
    ? {
        ...kept,
        n_epochs: plan.n_epochs,
        batch_size: plan.batch_size,
        learning_rate_multiplier: plan.learning_rate_multiplier,
        ...(kept.lora?.rank === 'auto' &&
          plan.lora && { lora: { ...kept.lora, rank: plan.lora.rank } }),
        ...(kept.precision === 'auto' && { precision: plan.precision }),
        ...(plan.beta !== undefined && { beta: plan.beta }),
      }
    : kept
