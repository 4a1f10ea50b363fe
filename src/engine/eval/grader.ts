// What a grader is, by the words of OpenAI's API (schemas Grader*), what it grades, and what comes of it.

import type { TextMetric } from './similarity/metrics.ts'

export interface StringCheckGrader {
  type: 'string_check'
  name: string
  input: string
  reference: string
  /** `like` and `ilike` ask whether the input contains the reference. */
  operation: 'eq' | 'ne' | 'like' | 'ilike'
}

export interface TextSimilarityGrader {
  type: 'text_similarity'
  name: string
  input: string
  reference: string
  evaluation_metric: TextMetric | 'cosine'
  pass_threshold?: number
  /** Ours: the encoder whose vectors `cosine` compares. */
  model?: string
}

/** Text, or parts that are joined; parts of another kind are refused. */
export type MessageContent = string | ContentPart | ContentPart[]
export type ContentPart = string | { type: string; text?: string }

export interface TemplateMessage {
  role: string
  content: MessageContent
}

export interface LabelModelGrader {
  type: 'label_model'
  name: string
  model: string
  input: TemplateMessage[]
  labels: string[]
  passing_labels: string[]
}

export interface GraderSampling {
  seed?: number | null
  top_p?: number | null
  temperature?: number | null
  /** Sic. */
  max_completions_tokens?: number | null
}

export interface ScoreModelGrader {
  type: 'score_model'
  name: string
  model: string
  input: TemplateMessage[]
  sampling_params?: GraderSampling
  range?: number[]
  pass_threshold?: number
}

/** Ours: `grade(sample, item)` gives a number. */
export interface JavascriptGrader {
  type: 'javascript'
  name: string
  source: string
  pass_threshold?: number
}

export interface PythonGrader {
  type: 'python'
  name: string
  source: string
}

export type SingleGrader =
  | StringCheckGrader
  | TextSimilarityGrader
  | LabelModelGrader
  | ScoreModelGrader
  | JavascriptGrader
  | PythonGrader

export interface MultiGrader {
  type: 'multi'
  name: string
  /** By name, in a list, or a single one. */
  graders: Record<string, SingleGrader> | SingleGrader[] | SingleGrader
  calculate_output: string
  pass_threshold?: number
}

export type Grader = SingleGrader | MultiGrader

/** What placeholders name: a row of the data, and what the model made of it. */
export interface Subject {
  item: Record<string, unknown>
  sample: Sample
}

export interface Sample {
  output_text: string
  /** Where the text is JSON. */
  output_json?: unknown
  [name: string]: unknown
}

/** A sample as placeholders see it. */
export function sampleOf(output_text: string, more: Record<string, unknown> = {}): Sample {
  try {
    return { output_text, output_json: JSON.parse(output_text) as unknown, ...more }
  } catch {
    return { output_text, ...more }
  }
}

/** The flags of OpenAI's RunGraderResponse that can be raised here. */
export type GradeFault =
  | 'formula_parse_error'
  | 'sample_parse_error'
  | 'invalid_variable_error'
  | 'other_error'
  | 'python_grader_runtime_error'
  | 'model_grader_server_error'
  | 'model_grader_parse_error'

/** Why there is no grade; the message may be told. */
export class GradeError extends Error {
  override readonly name = 'GradeError'
  readonly fault: GradeFault

  constructor(fault: GradeFault, message: string) {
    super(message)
    this.fault = fault
  }
}

/** What a grader found. */
export interface Grade {
  score: number
  passed: boolean
  /** Scores of a multi grader's own graders. */
  sub: Record<string, number>
  /** What a model said, or which label it chose; absent where none was asked. */
  detail?: { model: string; output_text: string; label?: string }[]
}

/** A multi grader's graders under the names by which its formula calls them. */
export function gradersOf({ graders }: MultiGrader): [key: string, grader: SingleGrader][] {
  if (Array.isArray(graders)) return graders.map((grader) => [variableOf(grader.name), grader])
  if (typeof graders.type === 'string') {
    const single = graders as SingleGrader
    return [[variableOf(single.name), single]]
  }
  return Object.entries(graders as Record<string, SingleGrader>)
}

/** A name as a formula can write it: `exact match` is `exact_match`. */
const variableOf = (name: string) => name.replace(/[^A-Za-z0-9_]+/g, '_')
