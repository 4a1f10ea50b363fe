// From a request's prompt to token ids, held against the model: what it knows and what fits.

import { invalidRequest } from '../../errors.ts'
import { encodeChatPrompt } from '../tokenizer/assistant-mask.ts'
import type { GenerateRequest } from './request.ts'
import type { ResidentTarget } from './residents.ts'

/**
 * Messages by the model's own template; a plain text gets what the tokenizer puts before every text.
 * Throws as soon as it is sure that the prompt does not fit: everybody waits while text becomes tokens.
 */
export function promptTokens(
  request: Pick<GenerateRequest, 'prompt'>,
  target: Pick<ResidentTarget, 'checkpoint' | 'tokenizer'>,
): number[] {
  const { checkpoint, tokenizer } = target
  const { prompt } = request
  if ('tokens' in prompt) return knownTokens(prompt.tokens, checkpoint.config.vocab_size)
  const atLeast = (tokens: number) => {
    if (tokens > checkpoint.config.max_position_embeddings)
      throw tooLong(request, target, `more than ${checkpoint.config.max_position_embeddings}`)
  }
  if ('messages' in prompt)
    return encodeChatPrompt({ tokenizer, chat_template: checkpoint.chat_template }, prompt, atLeast)
  atLeast(tokenizer.fewestTokens(prompt.text))
  return tokenizer.encode(prompt.text, { special: true })
}

const limitOf = ({ checkpoint }: Pick<ResidentTarget, 'checkpoint'>) =>
  `This model's maximum context length is ${checkpoint.config.max_position_embeddings} tokens.`

function tooLong(
  { prompt }: Pick<GenerateRequest, 'prompt'>,
  target: Pick<ResidentTarget, 'checkpoint'>,
  tokens: string,
) {
  const where = 'messages' in prompt ? 'messages' : 'prompt'
  return invalidRequest(
    `${limitOf(target)} However, your ${where} resulted in ${tokens} tokens. Please reduce the length of the ${where}.`,
    { param: where, code: 'context_length_exceeded' },
  )
}

function knownTokens(tokens: number[], vocab_size: number): number[] {
  const unknown = tokens.find((token) => token < 0 || token >= vocab_size)
  if (unknown === undefined) return tokens
  throw invalidRequest(`The model has ${vocab_size} tokens; there is no token ${unknown}.`, {
    param: 'prompt',
    code: 'invalid_value',
  })
}

/** How many new tokens fit. Throws where the prompt, or the prompt with what was asked for, does not. */
export function newTokens(
  request: GenerateRequest,
  promptLength: number,
  target: ResidentTarget,
): number {
  const context = target.checkpoint.config.max_position_embeddings
  const { prompt, max_tokens } = request
  const where = 'messages' in prompt ? 'messages' : 'prompt'
  if (promptLength === 0) throw invalidRequest('The prompt is empty.', { param: where })
  if (promptLength >= context + (max_tokens === 0 ? 1 : 0))
    throw tooLong(request, target, String(promptLength))
  if (max_tokens !== undefined && promptLength + max_tokens > context)
    throw invalidRequest(
      `${limitOf(target)} However, you requested ${promptLength + max_tokens} tokens (${promptLength} in the ${where}, ${max_tokens} in the completion). Please reduce the length of the ${where} or the completion.`,
      { param: 'max_tokens', code: 'context_length_exceeded' },
    )
  return max_tokens ?? context - promptLength
}

/** The ids of a bias; throws where one is no token of the model. */
export function checkBias({ sampling }: GenerateRequest, { checkpoint }: ResidentTarget): void {
  const { vocab_size } = checkpoint.config
  const unknown = Object.keys(sampling.logit_bias ?? {}).find(
    (id) => !/^\d+$/.test(id) || Number(id) >= vocab_size,
  )
  if (unknown === undefined) return
  throw invalidRequest(
    `Invalid key in 'logit_bias': '${unknown}'. Keys are token ids of the model, 0 to ${vocab_size - 1}.`,
    { param: 'logit_bias', code: 'invalid_value' },
  )
}
