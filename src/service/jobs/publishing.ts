// Which checkpoint of a job becomes its model. Pure.

import type { FineTuningJob } from '../db/fine-tuning-jobs.ts'

/** As the job says; where it does not, the best if validation rows that the client asked for can tell which that is. */
export function publishes({
  luthier,
  validation_sha256,
}: Pick<FineTuningJob, 'luthier' | 'validation_sha256'>): 'best' | 'final' {
  const hasValidation = validation_sha256 !== null || luthier?.data?.validation_split !== undefined
  return luthier?.publish?.checkpoint ?? (hasValidation ? 'best' : 'final')
}
