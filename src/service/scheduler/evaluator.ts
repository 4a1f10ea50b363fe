// One row of an eval at a time: its sample, its grades, what it came to. Keeps nothing.

import type { Grader, Sample, Subject } from '../../engine/eval/grader.ts'
import { sampleOf } from '../../engine/eval/grader.ts'
import type { Item } from '../../engine/eval/items.ts'
import type { PromptMessage } from '../../engine/eval/prompt.ts'
import type { Graded } from '../../engine/eval/request.ts'
import { ApiError } from '../../errors.ts'
import type { CriterionResult, NewOutputItem, OutputSample } from '../db/eval-output-items.ts'
import type { EvalRun } from '../db/eval-runs.ts'
import { type DataSource, samplingOf, withExamples } from '../evals/data.ts'
import type { Grading } from '../evals/grading.ts'
import { newId } from '../ids.ts'
import { type Asking, type Said, Usage } from './asking.ts'
import type { Sampler } from './sampler.ts'

/** A row that is done, and what its models have read and written. */
export interface Finished {
  item: NewOutputItem
  usage: Usage
}

export interface EvaluatorParts {
  run: EvalRun
  source: DataSource
  graders: Grader[]
  grading: Grading
  asking: Asking
  /** Absent where the rows bring their samples. */
  sampler: Sampler | undefined
  examples: readonly PromptMessage[]
  signal: AbortSignal
}

export class Evaluator {
  readonly #parts: EvaluatorParts
  readonly #asksModels: boolean

  constructor(parts: EvaluatorParts) {
    this.#parts = parts
    this.#asksModels = parts.graders.some(asksModel)
  }

  async evaluate(index: number, row: Item): Promise<Finished> {
    const { run, signal } = this.#parts
    const usage = new Usage()
    const subject = subjectOf(row)
    const taken = await this.#sample(subject, usage)
    if (taken.said) subject.sample = sampleOf(taken.said.output_text)
    const graded = taken.error ? [] : await this.#grade(subject, usage, signal)
    const results = this.#parts.graders.map((grader, i) => resultOf(grader, graded[i], taken.error))
    const errored = taken.error !== null || graded.some((one) => 'fault' in one)
    return {
      usage,
      item: {
        id: newId('outputitem_'),
        run_id: run.id,
        datasource_item_id: index,
        status: errored ? 'error' : results.every(({ passed }) => passed) ? 'pass' : 'fail',
        datasource_item: row.item,
        results,
        sample: this.#present(subject, taken),
      },
    }
  }

  async #sample(subject: Subject, usage: Usage): Promise<Taken> {
    const { run, source, sampler, grading, examples, signal } = this.#parts
    if (!sampler || !source.input_messages || run.model === null)
      return { messages: [], said: undefined, error: null }
    const prompt = await grading.prompt(source.input_messages, subject)
    if ('fault' in prompt)
      return {
        messages: [],
        said: undefined,
        error: { code: prompt.fault, message: prompt.message },
      }
    const messages = withExamples(prompt, examples)
    try {
      const said = await sampler.say(messages, signal)
      usage.add(run.model, said)
      return { messages, said, error: null }
    } catch (error) {
      if (!(error instanceof ApiError) || error.status >= 500) throw error
      const { code, message } = error
      return { messages, said: undefined, error: { code: code ?? 'invalid_request', message } }
    }
  }

  async #grade(subject: Subject, usage: Usage, signal: AbortSignal): Promise<Graded[]> {
    const { graders, grading, asking } = this.#parts
    if (!this.#asksModels)
      return grading.grade(
        graders,
        subject,
        graders.map(() => ({})),
      )
    const asked = await grading.questions(graders, subject)
    const answered = await Promise.all(
      asked.map((one) => ('fault' in one ? {} : asking.answer(one, usage, signal))),
    )
    const graded = await grading.grade(graders, subject, answered)
    return graded.map((one, i) => {
      const question = asked[i]
      return question && 'fault' in question ? question : one
    })
  }

  #present(subject: Subject, { messages, said, error }: Taken): OutputSample {
    const { run, source } = this.#parts
    const { output_text } = subject.sample as Partial<Sample>
    const { prompt_tokens = 0, completion_tokens = 0 } = said ?? {}
    return {
      input: messages,
      output: output_text === undefined ? [] : [{ role: 'assistant', content: output_text }],
      finish_reason: said?.finish_reason ?? (error ? 'error' : 'stop'),
      model: run.model ?? '',
      usage: {
        total_tokens: prompt_tokens + completion_tokens,
        completion_tokens,
        prompt_tokens,
        cached_tokens: 0,
      },
      error,
      ...samplingOf(source),
    }
  }
}

interface Taken {
  messages: PromptMessage[]
  said: Said | undefined
  error: { code: string; message: string } | null
}

/** What templates and graders see of a row. */
export const subjectOf = ({ item, sample }: Item): Subject => ({
  item,
  sample: (sample ?? {}) as Sample,
})

function asksModel(grader: Grader): boolean {
  if (grader.type === 'multi') return true
  if (grader.type === 'text_similarity') return grader.evaluation_metric === 'cosine'
  return grader.type === 'label_model' || grader.type === 'score_model'
}

function resultOf(
  { name, type }: Grader,
  graded: Graded | undefined,
  unsampled: Taken['error'],
): CriterionResult {
  if (graded && 'grade' in graded) {
    const { score, passed, sub, detail } = graded.grade
    const shown = { ...(detail && { said: detail }), ...(Object.keys(sub).length > 0 && { sub }) }
    return { name, type, score, passed, sample: Object.keys(shown).length > 0 ? shown : null }
  }
  const error = graded
    ? { code: graded.fault, message: graded.message }
    : (unsampled ?? { code: 'other_error', message: 'The row was not graded.' })
  return { name, type, score: 0, passed: false, sample: { error } }
}
