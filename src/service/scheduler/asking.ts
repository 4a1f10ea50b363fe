// What graders ask of models, asked of the models of this server; and what that took.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Answered, Question } from '../../engine/eval/grade.ts'
import { ApiError, invalidRequest } from '../../errors.ts'
import type { Models, ResolvedModel } from '../models/model.ts'
import { gather } from './generations.ts'
import type { Answering, Generation } from './serving.ts'

export interface ModelUsage {
  invocation_count: number
  prompt_tokens: number
  completion_tokens: number
}

/** Tokens by model. */
export class Usage {
  readonly by_model = new Map<string, ModelUsage>()

  add(model: string, tokens: { prompt_tokens: number; completion_tokens: number }): void {
    const known = this.by_model.get(model)
    const sum = known ?? { invocation_count: 0, prompt_tokens: 0, completion_tokens: 0 }
    sum.invocation_count++
    sum.prompt_tokens += tokens.prompt_tokens
    sum.completion_tokens += tokens.completion_tokens
    this.by_model.set(model, sum)
  }

  /** Adds what another counted. */
  join(other: Usage): void {
    for (const [model, { invocation_count, ...tokens }] of other.by_model) {
      this.add(model, tokens)
      this.by_model.get(model)!.invocation_count += invocation_count - 1
    }
  }

  get tokens(): number {
    let sum = 0
    for (const { prompt_tokens, completion_tokens } of this.by_model.values())
      sum += prompt_tokens + completion_tokens
    return sum
  }
}

export interface AskingDeps {
  models: Pick<Models, 'resolve' | 'list'>
  serving: Answering
}

/** What one model said to one prompt. */
export interface Said {
  output_text: string
  finish_reason: 'stop' | 'length'
  prompt_tokens: number
  completion_tokens: number
}

/** Asks models for a project. */
export class Asking {
  readonly #deps: AskingDeps
  readonly #project_id: string
  #encoder: Promise<string> | undefined

  constructor(deps: AskingDeps, project_id: string) {
    this.#deps = deps
    this.#project_id = project_id
  }

  /** Answers to all questions of one grade, by their keys. What the caller can mend is an answer of type `error`. */
  async answer(
    questions: readonly Question[],
    usage: Usage,
    signal: AbortSignal,
  ): Promise<Answered> {
    const answers = await Promise.all(
      questions.map(async (question): Promise<[string, Answered[string]]> => {
        try {
          return [question.key, await this.#ask(question, usage, signal)]
        } catch (error) {
          if (!(error instanceof ApiError) || error.status >= 500) throw error
          return [question.key, { type: 'error', message: error.message }]
        }
      }),
    )
    return Object.fromEntries(answers)
  }

  /** One answer; waits while the server is busy with others. */
  async say(
    model: ResolvedModel,
    generation: Omit<Generation, 'n' | 'stop'>,
    signal: AbortSignal,
  ): Promise<Said> {
    const whole = { ...generation, n: 1, stop: [] }
    const { prompt_tokens, completion_tokens, choices } = await whenFree(signal, () =>
      gather(this.#deps.serving.generate(model, whole, signal)),
    )
    const { text = '', finish_reason = 'stop' } = choices[0] ?? {}
    return { output_text: text, finish_reason, prompt_tokens, completion_tokens }
  }

  async #ask(question: Question, usage: Usage, signal: AbortSignal): Promise<Answered[string]> {
    const { models, serving } = this.#deps
    if (question.type === 'vectors') {
      const name = question.model ?? (await this.#defaultEncoder(signal))
      const model = await models.resolve(this.#project_id, name)
      const encoding = { task: 'embedding' as const, input: question.texts }
      const found = await whenFree(signal, () => serving.encode(model, encoding, signal))
      usage.add(name, { prompt_tokens: found.prompt_tokens, completion_tokens: 0 })
      const vectors = found.results.map((one) => (one.type === 'embedding' ? one.vector : []))
      return { type: 'vectors', model: name, vectors }
    }
    const { model: name, messages, max_tokens, temperature, top_p, seed } = question
    const model = await models.resolve(this.#project_id, name)
    const sampling = { temperature, top_p, seed }
    const said = await this.say(model, { prompt: { messages }, max_tokens, sampling }, signal)
    usage.add(name, said)
    return { type: 'chat', model: name, output_text: said.output_text }
  }

  /** The first encoder among the base models. */
  #defaultEncoder(signal: AbortSignal): Promise<string> {
    const finding = this.#encoder ?? this.#findEncoder(signal)
    this.#encoder = finding
    finding.catch(() => {
      this.#encoder = undefined
    })
    return finding
  }

  async #findEncoder(signal: AbortSignal): Promise<string> {
    const { models, serving } = this.#deps
    const base = (await models.list(this.#project_id)).filter(({ id, root }) => id === root)
    for (const { id } of base) {
      const model = await models.resolve(this.#project_id, id)
      try {
        const probe = { task: 'embedding' as const, input: ['a'] }
        await whenFree(signal, () => serving.encode(model, probe, signal))
        return id
      } catch (error) {
        if (!(error instanceof ApiError) || error.status >= 500) throw error
      }
    }
    throw invalidRequest(
      'The metric cosine compares the vectors of an encoder, and no base model here is one. Install one, or name a tuned one as `model` of the grader.',
      { code: 'no_encoder' },
    )
  }
}

const BUSY_SECONDS = 600

/** Waits out a server that is full, or whose inference thread has just been lost. */
export async function whenFree<T>(signal: AbortSignal, ask: () => Promise<T>): Promise<T> {
  const end = Date.now() + BUSY_SECONDS * 1000
  for (let pause = 100; ; pause = Math.min(pause * 2, 2000)) {
    try {
      return await ask()
    } catch (error) {
      signal.throwIfAborted()
      const passes = error instanceof ApiError && (error.status === 503 || error.status === 429)
      if (!passes || Date.now() > end) throw error
      await sleep(pause, undefined, { signal })
    }
  }
}
