// Which checkpoint of a job becomes its model. Pure.

import { methodOf } from '../../engine/train/methods/index.ts'
import type { BestBy } from '../db/fine-tuning-checkpoints.ts'
import type { FineTuningJob } from '../db/fine-tuning-jobs.ts'
import type { JobFailure } from './file-errors.ts'

/** As the job says; where it does not, the best if an eval or validation rows that the client named can tell which that is. */
export function publishes({
  luthier,
  validation_sha256,
}: Pick<FineTuningJob, 'luthier' | 'validation_sha256'>): 'best' | 'final' {
  const hasValidation = validation_sha256 !== null || luthier?.data?.validation_split !== undefined
  const isMeasured = hasValidation || luthier?.publish?.eval !== undefined
  return luthier?.publish?.checkpoint ?? (isMeasured ? 'best' : 'final')
}

/** What says which checkpoint is best: the eval, where the job names one. */
export const bestBy = ({ luthier }: Pick<FineTuningJob, 'luthier'>): BestBy =>
  luthier?.publish?.eval === undefined ? 'full_valid_loss' : 'eval_score'

/** Whether a model that has forgotten too much is not to be published. */
export const isGuarded = ({ luthier }: Pick<FineTuningJob, 'luthier'>): boolean =>
  luthier?.publish?.max_regression !== undefined

/** Why this checkpoint must not be published, if it must not. */
export function regressionOf(
  { luthier, method }: Pick<FineTuningJob, 'luthier' | 'method'>,
  { step_number, metrics }: { step_number: number; metrics: Record<string, number> },
): JobFailure | undefined {
  const limit = luthier?.publish?.max_regression
  const { probe_loss, probe_base_loss, probe_divergence } = metrics
  if (limit === undefined || probe_loss === undefined || probe_base_loss === undefined) return
  const growth = probe_loss - probe_base_loss
  // What is no number any more has grown too much as well.
  if (growth <= limit) return
  const measured = methodOf(method.type).encoders
    ? ['in saying which general texts are near which its loss', 'text']
    : ['on general texts its loss', 'token']
  const message =
    `The model is not published: ${measured[0]} is ${probe_loss.toFixed(3)} nats a ${measured[1]}, where that of its base is ` +
    `${probe_base_loss.toFixed(3)}: ${growth.toFixed(3)} more, and max_regression is ${limit} (divergence from the base: ` +
    `${probe_divergence?.toFixed(3)}). The checkpoint of step ${step_number} and all others stay, under their own names. ` +
    'Fewer epochs, a lower learning rate or more varied rows forget less.'
  return {
    error: { code: 'model_regressed', message, param: 'luthier.publish.max_regression' },
    errors: [],
  }
}

/** Why a model that would be served otherwise than it was trained is not published. */
export const parityFailure = (difference: string, step_number: number): JobFailure => ({
  error: {
    code: 'parity_check_failed',
    message: `The model is not published: it would not be served as it was trained. ${difference} The checkpoint of step ${step_number} and all others stay, under their own names.`,
    param: null,
  },
  errors: [],
})
