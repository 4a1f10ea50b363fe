// Whether a grader can work at all, before anything is graded: what a schema cannot say. Throws the first mistake.

import { invalidRequest } from '../../errors.ts'
import { parseFormula } from './formula.ts'
import { rangeOf } from './grade.ts'
import { GradeError, type Grader, gradersOf } from './grader.ts'
import { checkScript } from './script.ts'
import { checkMessages, checkTemplate, MAX_TEMPLATE } from './template.ts'

/** `param` is the path of the grader in the request: `testing_criteria[0]`. */
export async function checkGrader(grader: Grader, param: string): Promise<void> {
  switch (grader.type) {
    case 'string_check':
    case 'text_similarity':
      checkTemplate(grader.input, `${param}.input`)
      checkTemplate(grader.reference, `${param}.reference`)
      return
    case 'label_model': {
      checkMessages(grader.input, `${param}.input`)
      const other = grader.passing_labels.find((label) => !grader.labels.includes(label))
      if (other !== undefined)
        throw wrong(
          `Invalid '${param}.passing_labels': '${other}' is not among the labels.`,
          `${param}.passing_labels`,
        )
      return
    }
    case 'score_model': {
      checkMessages(grader.input, `${param}.input`)
      const [least, most] = rangeOf(grader)
      if (!(least < most) || (grader.range && grader.range.length !== 2))
        throw wrong(
          `Invalid '${param}.range': expected two numbers, the lower one first.`,
          `${param}.range`,
        )
      return
    }
    case 'javascript':
      if (grader.source.length > MAX_TEMPLATE)
        throw wrong(
          `Invalid '${param}.source': expected at most ${MAX_TEMPLATE} characters.`,
          `${param}.source`,
        )
      await checkScript(grader.source).catch((error: unknown) => {
        if (!(error instanceof GradeError)) throw error
        throw wrong(`Invalid '${param}.source': ${error.message}`, `${param}.source`)
      })
      return
    case 'python':
      throw invalidRequest(
        'This server runs no python graders. Use a grader of type `javascript`, whose `source` defines `function grade(sample, item)` and returns a number, or string_check, text_similarity, label_model, score_model or multi.',
        { param, code: 'unsupported_grader' },
      )
    case 'multi': {
      const graders = gradersOf(grader)
      if (graders.length === 0)
        throw wrong(`Invalid '${param}.graders': expected at least one.`, `${param}.graders`)
      for (const [key, one] of graders) await checkGrader(one, `${param}.graders.${key}`)
      const keys = graders.map(([key]) => key)
      const twice = keys.find((key, i) => keys.indexOf(key) !== i)
      if (twice !== undefined)
        throw wrong(`Invalid '${param}.graders': two are called '${twice}'.`, `${param}.graders`)
      const where = `${param}.calculate_output`
      const formula = readFormula(grader.calculate_output, where)
      const unknown = formula.names.find((name) => !keys.includes(name))
      if (unknown !== undefined)
        throw wrong(
          `Invalid '${where}': there is no grader '${unknown}', only ${keys.map((key) => `'${key}'`).join(', ')}.`,
          where,
        )
      return
    }
    default:
      grader satisfies never
  }
}

function readFormula(text: string, param: string) {
  try {
    return parseFormula(text)
  } catch (error) {
    if (error instanceof GradeError) throw wrong(`Invalid '${param}': ${error.message}`, param)
    throw error
  }
}

const wrong = (message: string, param: string) =>
  invalidRequest(message, { param, code: 'invalid_grader' })
