// How many examples stand before each prompt of a run: as many as fit, or as many as were asked for.

import type { PromptMessage } from '../../engine/eval/prompt.ts'
import { ApiError, invalidRequest } from '../../errors.ts'
import type { FewShot, RunExtension } from '../db/eval-runs.ts'
import { withExamples } from '../evals/data.ts'
import type { Sampler } from './sampler.ts'

/** More than these are not tried, whatever fits: every one is read again for every row. */
export const MOST_EXAMPLES = 64

/**
 * Chooses a prefix of the examples: with `auto` the longest with which the longest prompt still fits into the context,
 * the answer included. Throws ApiError where a number was asked for that does not fit.
 */
export async function fitExamples(
  examples: readonly PromptMessage[][],
  longest: PromptMessage[],
  {
    wanted,
    sampler,
    signal,
  }: { wanted: NonNullable<RunExtension['few_shot']>; sampler: Sampler; signal: AbortSignal },
): Promise<FewShot> {
  const most = wanted.max_prompt_tokens ?? Number.POSITIVE_INFINITY
  const measured = new Map<number, number | undefined>()
  const fits = async (count: number): Promise<boolean> => {
    const messages = withExamples(longest, examples.slice(0, count).flat())
    try {
      const tokens = (await sampler.promptTokens(messages, signal)) ?? 0
      measured.set(count, tokens)
      return tokens <= most
    } catch (error) {
      if (error instanceof ApiError && error.code === 'context_length_exceeded') return false
      throw error
    }
  }
  const settle = (count: number): FewShot => ({
    messages: examples.slice(0, count).flat(),
    examples: count,
    prompt_tokens: measured.get(count) ?? 0,
  })

  if (wanted.examples !== 'auto') {
    if (await fits(examples.length)) return settle(examples.length)
    throw invalidRequest(
      `${examples.length} examples do not fit before the longest prompt of this run. Ask for fewer, or for 'auto'.`,
      { param: 'luthier.few_shot.examples', code: 'context_length_exceeded' },
    )
  }
  let [low, high] = [0, examples.length]
  if (await fits(high)) return settle(high)
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (await fits(middle)) low = middle
    else high = middle
  }
  if (low > 0 || (await fits(0))) return settle(low)
  throw invalidRequest('The longest prompt of this run does not fit into the context by itself.', {
    param: 'data_source.input_messages',
    code: 'context_length_exceeded',
  })
}
