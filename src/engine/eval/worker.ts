// The grading thread's entry: texts, formulas, scripts and schemas of clients are worked on here, where whatever
// never ends can be ended with the thread.

import { serve } from '../runtime/thread.ts'
import { checkGrader } from './check.ts'
import { type CompareRequest, compareRuns } from './compare.ts'
import { chooseExamples } from './examples.ts'
import { grade, questions } from './grade.ts'
import { GradeError, type GradeFault } from './grader.ts'
import { mistakeOf, readItems } from './items.ts'
import { promptOf } from './prompt.ts'
import type { Graded, GradeThreadEvent, GradeThreadRequest } from './request.ts'

/** Rows that are read ahead of those that are graded. */
const AHEAD = 64

serve<GradeThreadRequest, GradeThreadEvent>(
  async function* (request) {
    switch (request.type) {
      case 'questions': {
        const { graders, subject } = request
        const asked = await Promise.all(
          graders.map((grader) => attempt(async () => questions(grader, subject))),
        )
        yield {
          type: 'questions',
          questions: asked.map((one) => ('value' in one ? one.value : one)),
        }
        return
      }
      case 'grade': {
        const { graders, subject, answered } = request
        const graded: Graded[] = []
        for (const [i, grader] of graders.entries()) {
          const one = await attempt(() => grade(grader, subject, answered[i] ?? {}))
          graded.push('value' in one ? { grade: one.value } : one)
        }
        yield { type: 'graded', graded }
        return
      }
      case 'prompt': {
        const one = await attempt(async () => promptOf(request.input, request.subject))
        yield { type: 'prompt', prompt: 'value' in one ? one.value : one }
        return
      }
      case 'examples':
        yield { type: 'examples', examples: await chooseExamples(request.path, request) }
        return
      case 'check':
        for (const { grader, param } of request.graders) await checkGrader(grader, param)
        yield { type: 'checked' }
        return
      case 'check_items':
        for (const [index, item] of request.items.entries()) {
          const error = mistakeOf(item, request.schema)
          if (error !== undefined) yield { type: 'bad_item', index, error }
        }
        return
      case 'read_items':
        for await (const read of readItems(request.path, request.schema, request.from))
          if ('error' in read) yield { type: 'bad_item', ...read }
          else yield { type: 'item', ...read }
        return
      case 'compare':
        yield* compared(request)
        return
      default:
        request satisfies never
    }
  },
  { ahead: AHEAD },
)

function* compared(request: CompareRequest): Generator<GradeThreadEvent, void, undefined> {
  const steps = compareRuns(request)
  for (let step = steps.next(); ; step = steps.next()) {
    if (step.done) return yield { type: 'compared', comparison: step.value }
    yield { type: 'comparing' }
  }
}

async function attempt<T>(
  f: () => Promise<T>,
): Promise<{ value: T } | { fault: GradeFault; message: string }> {
  try {
    return { value: await f() }
  } catch (error) {
    if (!(error instanceof GradeError)) throw error
    return { fault: error.fault, message: error.message }
  }
}
