// What is said of a search: weights or a density that a loss, or an eval, chooses instead of the text.

import { bad, type Json, list, number, only, record, text, whole } from './fields.ts'

export interface SearchSettings {
  /** Rows that none of the inputs has learned: a path, or over the API a file's id. The lowest loss is chosen. */
  readonly validation_file?: string
  /** Instead of them, over the API: the eval whose highest score is chosen. */
  readonly eval?: string
  /** Candidates that are tried, the given weights among them. */
  readonly budget: number
  /** The least and the most; absent: it stays as given. */
  readonly weights?: readonly [number, number]
  readonly density?: readonly [number, number]
}

const MOST_CANDIDATES = 1000

/** Reads `search` of a merge's text; `method` is what it is of. */
export function readSearch(
  value: unknown,
  method: { readonly name: string; readonly hasDensity: boolean },
): SearchSettings {
  const sent = record(value, 'search')
  only(sent, ['validation_file', 'eval', 'budget', 'weights', 'density'], 'search.')
  const budget = whole(sent.budget ?? 30, 'search.budget')
  if (budget < 1 || budget > MOST_CANDIDATES)
    throw bad('search.budget', `Expected 1 to ${MOST_CANDIDATES} candidates, found ${budget}`)
  if (sent.density != null && !method.hasDensity)
    throw bad('search.density', `The method '${method.name}' has no density`)
  const density = rangeOf(sent.density, 'search.density')
  if (density && !(density[0] > 0 && density[1] <= 1))
    throw bad('search.density', 'Expected two numbers above 0 and at most 1')
  const weights = rangeOf(sent.weights, 'search.weights') ?? (density ? undefined : [0, 1.5])
  return {
    ...measureOf(sent),
    budget,
    ...(weights && { weights }),
    ...(density && { density }),
  }
}

/** What candidates are compared by: exactly one of the two. */
function measureOf(sent: Json): Pick<SearchSettings, 'validation_file' | 'eval'> {
  if (sent.eval == null && sent.validation_file == null)
    throw bad(
      'search.validation_file',
      "Expected it or 'search.eval', which candidates are compared by",
      'missing_required_parameter',
    )
  if (sent.eval == null)
    return { validation_file: text(sent.validation_file, 'search.validation_file') }
  if (sent.validation_file != null)
    throw bad('search.eval', "Expected it or 'search.validation_file', not both")
  return { eval: text(sent.eval, 'search.eval') }
}

function rangeOf(value: unknown, param: string): readonly [number, number] | undefined {
  if (value == null) return undefined
  const [low, high, ...more] = list(value, param).map((x) => number(x, param))
  if (low !== undefined && high !== undefined && low < high && more.length === 0) return [low, high]
  throw bad(param, 'Expected the least and the most')
}
