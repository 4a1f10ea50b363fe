// What the grading thread is asked, and what it answers.

import type { CompareRequest, Comparison } from './compare.ts'
import type { PromptExample } from './examples.ts'
import type { Answered, Question } from './grade.ts'
import type { Grade, GradeFault, Grader, Subject } from './grader.ts'
import type { Item, ItemSchema } from './items.ts'
import type { InputMessages, PromptMessage } from './prompt.ts'

export type GradeThreadRequest =
  | { type: 'questions'; graders: Grader[]; subject: Subject }
  | { type: 'grade'; graders: Grader[]; subject: Subject; answered: Answered[] }
  | { type: 'prompt'; input: InputMessages; subject: Subject }
  /** Out of a training file. */
  | { type: 'examples'; path: string; limit: number; seed: number }
  /** Throws ApiError at the first grader that cannot work. */
  | { type: 'check'; graders: { grader: Grader; param: string }[] }
  /** Rows that came with a request, or of a file from the one at `from` on. */
  | { type: 'check_items'; items: unknown[]; schema: ItemSchema }
  | { type: 'read_items'; path: string; schema: ItemSchema; from: number }
  | ({ type: 'compare' } & CompareRequest)

/** One grader's grade, or why there is none. */
export type Graded = { grade: Grade } | { fault: GradeFault; message: string }

export type GradeThreadEvent =
  /** For each grader, in order; where a placeholder names nothing there is a fault instead. */
  | { type: 'questions'; questions: (Question[] | { fault: GradeFault; message: string })[] }
  | { type: 'graded'; graded: Graded[] }
  | { type: 'prompt'; prompt: PromptMessage[] | { fault: GradeFault; message: string } }
  | { type: 'examples'; examples: PromptExample[] }
  | { type: 'checked' }
  | { type: 'bad_item'; index: number; line?: number; error: string }
  | { type: 'item'; index: number; item: Item }
  /** A part of it is done. */
  | { type: 'comparing' }
  | { type: 'compared'; comparison: Comparison }
