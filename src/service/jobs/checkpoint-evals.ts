// The eval of a job's checkpoints: found when the job is asked for, scored at each epoch's end.

import { methodOf } from '../../engine/train/methods/index.ts'
import { invalidRequest } from '../../errors.ts'
import type { PinnedEval } from '../db/evals.ts'
import type { Db } from '../db/pool.ts'
import { pinEval, type RunScore } from '../evals/pinned.ts'
import type { JobMethod } from './hyperparameters.ts'

/** What one epoch's end came to. */
export interface EvalScore extends RunScore {
  step: number
}

const param = 'luthier.publish.eval'

/** The eval that a job names: it goes over what its newest run of a model went over. Throws where there is none. */
export async function resolveCheckpointEval(
  db: Db,
  { project_id, id, method }: { project_id: string; id: string; method: JobMethod },
): Promise<PinnedEval & { items_sha256: string }> {
  if (methodOf(method.type).name === 'embedding')
    throw invalidRequest(
      "A model of the method 'embedding' answers nothing that an eval could grade.",
      { param, code: 'unsupported_value' },
    )
  return pinEval(db, { project_id, id, param })
}
