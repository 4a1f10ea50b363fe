// How a run asks its model: a decoder goes on with the messages, a classifier gives the label of what the user says.

import type { PromptMessage } from '../../engine/eval/prompt.ts'
import type { Encoded } from '../../engine/infer/encode-request.ts'
import { ApiError } from '../../errors.ts'
import type { ResolvedModel } from '../models/model.ts'
import { type Asking, type AskingDeps, type Said, whenFree } from './asking.ts'

export interface SamplerParams {
  temperature: number
  top_p: number
  seed: number
  max_completion_tokens: number
}

/** Asks one model. What the caller can mend is an ApiError. */
export interface Sampler {
  say(messages: PromptMessage[], signal: AbortSignal): Promise<Said>
  /** Tokens of the prompt, without a word in answer; undefined where that is no matter. */
  promptTokens(messages: PromptMessage[], signal: AbortSignal): Promise<number | undefined>
}

/** Looks what the model is: one with labels classifies, every other one answers. */
export async function openSampler(
  { serving }: AskingDeps,
  asking: Asking,
  { model, params, signal }: { model: ResolvedModel; params: SamplerParams; signal: AbortSignal },
): Promise<Sampler> {
  const classify = (text: string, ended: AbortSignal) =>
    whenFree(ended, () => serving.encode(model, { task: 'classification', input: [text] }, ended))
  const { max_completion_tokens: max_tokens, ...sampling } = params
  if (!(await isRefused(() => classify('a', signal))))
    return {
      async say(messages, ended) {
        const text = messages.findLast(({ role }) => role === 'user')?.content ?? ''
        const { results, prompt_tokens } = await classify(text, ended)
        const output_text = results[0] ? labelOf(results[0]) : ''
        return { output_text, finish_reason: 'stop', prompt_tokens, completion_tokens: 0 }
      },
      promptTokens: async () => undefined,
    }
  return {
    say: (messages, ended) =>
      asking.say(model, { prompt: { messages }, max_tokens, sampling }, ended),
    async promptTokens(messages, ended) {
      const generation = { prompt: { messages }, max_tokens, sampling, n: 1, stop: [] }
      return whenFree(ended, async () => {
        // Left at its first event, which comes before anything is computed.
        for await (const event of serving.generate(model, generation, ended))
          if (event.type === 'prompt') return event.prompt_tokens
        throw new Error('A generation began without its prompt event.')
      })
    },
  }
}

async function isRefused(ask: () => Promise<unknown>): Promise<boolean> {
  try {
    await ask()
    return false
  } catch (error) {
    if (error instanceof ApiError && error.status < 500) return true
    throw error
  }
}

/** The most probable label; all of at least one half where there may be several; spans as JSON. */
function labelOf(encoded: Encoded): string {
  switch (encoded.type) {
    case 'embedding':
      throw new Error('A classification was asked for, and a vector came.')
    case 'single':
      return encoded.scores.reduce((best, one) => (one.score > best.score ? one : best)).label
    case 'several':
      return encoded.scores
        .filter(({ score }) => score >= 0.5)
        .map(({ label }) => label)
        .join(', ')
    case 'tokens':
      return JSON.stringify(encoded.spans.map(({ label, start, end }) => ({ label, start, end })))
    default:
      return encoded satisfies never
  }
}
