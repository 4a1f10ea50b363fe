// One grader over one sample, as /fine_tuning/alpha/graders asks for it.

import { type Grade, type GradeFault, type Grader, sampleOf } from '../../engine/eval/grader.ts'
import type { Grading } from '../evals/grading.ts'
import { Asking, type AskingDeps, type ModelUsage, Usage } from './asking.ts'

/** What one grading came to. */
export interface GraderRun {
  grade: Grade | undefined
  /** Why there is no grade. */
  fault: { fault: GradeFault; message: string } | undefined
  seconds: number
  usage: ReadonlyMap<string, ModelUsage>
  tokens: number
}

export interface Graders {
  /** Throws ApiError where the grader cannot work. */
  validate(grader: Grader): Promise<void>
  run(
    project_id: string,
    request: { grader: Grader; item: Record<string, unknown>; model_sample: string },
    signal: AbortSignal,
  ): Promise<GraderRun>
}

export const createGraders = (deps: AskingDeps & { grading: Grading }): Graders => {
  const validate = (grader: Grader) => deps.grading.check([{ grader, param: 'grader' }])
  return {
    validate,
    async run(project_id, { grader, item, model_sample }, signal) {
      await validate(grader)
      const began = performance.now()
      const usage = new Usage()
      const subject = { item, sample: sampleOf(model_sample) }
      const end = (result: Pick<GraderRun, 'grade' | 'fault'>): GraderRun => ({
        ...result,
        seconds: (performance.now() - began) / 1000,
        usage: usage.by_model,
        tokens: usage.tokens,
      })
      const [asked] = await deps.grading.questions([grader], subject)
      if (!asked || 'fault' in asked) return end({ grade: undefined, fault: asked })
      const answered = await new Asking(deps, project_id).answer(asked, usage, signal)
      const [graded] = await deps.grading.grade([grader], subject, [answered])
      if (!graded || 'fault' in graded) return end({ grade: undefined, fault: graded })
      return end({ grade: graded.grade, fault: undefined })
    },
  }
}
