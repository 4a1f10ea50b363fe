// Grading in two halves, for models are asked by others: `questions` says what must be asked, `grade` reads the
// answers. Text in, numbers out; asks nobody, keeps nothing.

import { parseFormula } from './formula.ts'
import {
  type Grade,
  GradeError,
  type Grader,
  gradersOf,
  type ScoreModelGrader,
  type SingleGrader,
  type Subject,
  type TextSimilarityGrader,
} from './grader.ts'
import { readLabel, readScore } from './read-answer.ts'
import { runScript } from './script.ts'
import { cosine, SIMILARITIES } from './similarity/metrics.ts'
import { render, renderContent } from './template.ts'

/** What a model must be asked before a grade can be given; `key` is the grader's name inside a multi grader, or ''. */
export type Question =
  | {
      type: 'chat'
      key: string
      model: string
      messages: { role: string; content: string }[]
      temperature: number
      top_p: number
      seed: number
      max_tokens: number
    }
  | {
      type: 'vectors'
      key: string
      model: string | undefined
      texts: [input: string, reference: string]
    }

/** What the models said, by key. An error stands for an answer that did not come. */
export type Answered = Record<
  string,
  | { type: 'chat'; model: string; output_text: string }
  | { type: 'vectors'; model: string; vectors: number[][] }
  | { type: 'error'; message: string }
>

const DEFAULT_SEED = 42
const LABEL_TOKENS = 64
const SCORE_TOKENS = 512

/** What must be asked of models for this grade; throws GradeError where a placeholder names nothing. */
export function questions(grader: Grader, subject: Subject): Question[] {
  if (grader.type === 'multi')
    return gradersOf(grader).flatMap(([key, one]) => question(key, one, subject) ?? [])
  return [question('', grader, subject) ?? []].flat()
}

function question(key: string, grader: SingleGrader, subject: Subject): Question | undefined {
  switch (grader.type) {
    case 'label_model':
    case 'score_model': {
      const { model } = grader
      const sampling = (grader.type === 'score_model' ? grader.sampling_params : undefined) ?? {}
      const limit = grader.type === 'score_model' ? SCORE_TOKENS : LABEL_TOKENS
      return {
        type: 'chat',
        key,
        model,
        messages: grader.input.map(({ role, content }) => ({
          role: role === 'developer' ? 'system' : role,
          content: renderContent(content, subject),
        })),
        temperature: sampling.temperature ?? 0,
        top_p: sampling.top_p ?? 1,
        seed: sampling.seed ?? DEFAULT_SEED,
        max_tokens: sampling.max_completions_tokens ?? limit,
      }
    }
    case 'text_similarity':
      if (grader.evaluation_metric !== 'cosine') return undefined
      return { type: 'vectors', key, model: grader.model, texts: textsOf(grader, subject) }
    default:
      return undefined
  }
}

/** The grade; throws GradeError where there can be none. */
export async function grade(grader: Grader, subject: Subject, answered: Answered): Promise<Grade> {
  if (grader.type !== 'multi') {
    const { score, detail } = await gradeOne('', grader, { subject, answered })
    return {
      score,
      passed: score >= thresholdOf(grader),
      sub: {},
      ...(detail && { detail: [detail] }),
    }
  }
  const formula = parseFormula(grader.calculate_output)
  const sub: Record<string, number> = {}
  const details: NonNullable<Grade['detail']> = []
  for (const [key, one] of gradersOf(grader)) {
    const { score, detail } = await gradeOne(key, one, { subject, answered })
    sub[key] = score
    if (detail) details.push(detail)
  }
  const score = formula.evaluate(sub)
  const passed = score >= thresholdOf(grader)
  return { score, passed, sub, ...(details.length > 0 && { detail: details }) }
}

type One = { score: number; detail?: NonNullable<Grade['detail']>[number] }

async function gradeOne(
  key: string,
  grader: SingleGrader,
  { subject, answered }: { subject: Subject; answered: Answered },
): Promise<One> {
  switch (grader.type) {
    case 'string_check':
      return { score: holds(grader.operation, ...textsOf(grader, subject)) ? 1 : 0 }
    case 'text_similarity': {
      const { evaluation_metric: metric } = grader
      if (metric === 'cosine') return { score: angle(answered[key]) }
      return { score: SIMILARITIES[metric](...textsOf(grader, subject)) }
    }
    case 'label_model': {
      const said = saidBy(answered[key])
      const label = readLabel(said.output_text, grader.labels)
      return { score: grader.passing_labels.includes(label) ? 1 : 0, detail: { ...said, label } }
    }
    case 'score_model': {
      const said = saidBy(answered[key])
      return { score: readScore(said.output_text, rangeOf(grader)), detail: said }
    }
    case 'javascript':
      return { score: await runScript(grader.source, subject) }
    case 'python':
      throw new GradeError('other_error', 'python graders are not run by this server.')
    default:
      return grader satisfies never
  }
}

function holds(operation: string, input: string, reference: string): boolean {
  switch (operation) {
    case 'eq':
      return input === reference
    case 'ne':
      return input !== reference
    case 'like':
      return input.includes(reference)
    default:
      return input.toLowerCase().includes(reference.toLowerCase())
  }
}

/** From which score on a grader passes: what it says, else the middle of what it can give. */
export function thresholdOf(grader: Grader): number {
  if ('pass_threshold' in grader && grader.pass_threshold !== undefined)
    return grader.pass_threshold
  if (grader.type === 'string_check' || grader.type === 'label_model') return 1
  if (grader.type !== 'score_model') return 0.5
  const [least, most] = rangeOf(grader)
  return (least + most) / 2
}

export const rangeOf = ({ range }: ScoreModelGrader): readonly [number, number] => [
  range?.[0] ?? 0,
  range?.[1] ?? 1,
]

const textsOf = (
  { input, reference }: Pick<TextSimilarityGrader, 'input' | 'reference'>,
  subject: Subject,
): [string, string] => [render(input, subject), render(reference, subject)]

function saidBy(answer: Answered[string] | undefined) {
  const { model, output_text } = expectAnswer(answer, 'chat')
  return { model, output_text }
}

function angle(answer: Answered[string] | undefined): number {
  const { vectors } = expectAnswer(answer, 'vectors')
  return cosine(vectors[0] ?? [], vectors[1] ?? [])
}

function expectAnswer<Type extends 'chat' | 'vectors'>(
  answer: Answered[string] | undefined,
  type: Type,
): Extract<Answered[string], { type: Type }> {
  if (answer?.type === 'error') throw new GradeError('model_grader_server_error', answer.message)
  if (answer?.type !== type) throw new Error(`An answer of type ${type} was expected.`)
  return answer as Extract<Answered[string], { type: Type }>
}
