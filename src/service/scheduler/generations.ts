// Several prompts answered as one request, and events gathered into whole answers. Knows no HTTP.

import type { InferEvent, ListedToken } from '../../engine/infer/request.ts'
import type { ToolSyntax } from '../../engine/tools/syntax.ts'
import type { ResolvedModel } from '../models/model.ts'
import type { Answering, Generation } from './serving.ts'

type Events = AsyncGenerator<InferEvent, void, undefined>

/** What `n` choices came to, in order. */
export interface Answers {
  prompt_tokens: number
  completion_tokens: number
  /** Of the prompts, what had not to be computed. */
  cached_tokens: number
  choices: Answer[]
  /** Where the request has tools. */
  tool_syntax?: ToolSyntax
}

export interface Answer {
  text: string
  finish_reason: 'stop' | 'length'
  /** The prompt, where it was asked for. */
  echo?: Omit<InferEvent & { type: 'echo' }, 'type' | 'index'>
  /** Where log-probabilities were asked for. */
  tokens?: ListedToken[]
  end_token?: ListedToken
  mean_logprob?: number
}

/**
 * Answers every prompt at once: choice `i` of prompt `p` has the index `p · n + i`. It returns when all
 * prompts were accepted, so that a wrong one is an error before the first word; then come one `prompt`
 * event with the sum, and the others as they happen. If one fails, the others end.
 */
export async function generateAll(
  serving: Answering,
  model: ResolvedModel,
  generations: readonly Generation[],
  signal: AbortSignal,
): Promise<Events> {
  const failed = new AbortController()
  const both = AbortSignal.any([signal, failed.signal])
  const runs = generations.map((generation) => serving.generate(model, generation, both))
  // A run that nobody reads on would keep its place for ever.
  both.addEventListener('abort', () => leave(runs), { once: true })
  try {
    const firsts = await Promise.all(runs.map((run) => run.next()))
    let prompt_tokens = 0
    for (const { value } of firsts) {
      if (value?.type !== 'prompt') throw new Error('A generation began without its prompt event.')
      prompt_tokens += value.prompt_tokens
    }
    const { n } = generations[0]!
    const rest = runs.map((run, at) => shift(run, at * n))
    const first = firsts[0]?.value
    const tool_syntax = first?.type === 'prompt' ? first.tool_syntax : undefined
    return follow(
      { type: 'prompt', prompt_tokens, ...(tool_syntax && { tool_syntax }) },
      merge(rest),
      failed,
    )
  } catch (error) {
    failed.abort(error)
    throw error
  }
}

/** Reads all events and gives each choice its text. */
export async function gather(events: AsyncIterable<InferEvent>): Promise<Answers> {
  const gathered = createGathering()
  for await (const event of events) gathered.add(event)
  return gathered.answers
}

/** Passes events on, and gathers them on the way. */
export async function* gathering(
  events: AsyncIterable<InferEvent>,
  { add }: Gathering,
): AsyncGenerator<InferEvent, void, undefined> {
  for await (const event of events) {
    add(event)
    yield event
  }
}

export interface Gathering {
  readonly answers: Answers
  add(event: InferEvent): void
}

/** What events came to so far. */
export function createGathering(): Gathering {
  const answers: Answers = { prompt_tokens: 0, completion_tokens: 0, cached_tokens: 0, choices: [] }
  const parts = new Map<number, Omit<Answer, 'finish_reason'>>()
  const part = (index: number) => {
    const known = parts.get(index)
    if (known) return known
    const made: Omit<Answer, 'finish_reason'> = { text: '' }
    parts.set(index, made)
    return made
  }
  function add(event: InferEvent): void {
    switch (event.type) {
      case 'ready':
        break
      case 'prompt':
        answers.prompt_tokens += event.prompt_tokens
        if (event.tool_syntax) answers.tool_syntax = event.tool_syntax
        break
      case 'echo': {
        const { text, tokens } = event
        part(event.index).echo = { text, ...(tokens && { tokens }) }
        break
      }
      case 'delta': {
        const answer = part(event.index)
        answer.text += event.text
        if (event.tokens) {
          answer.tokens ??= []
          for (const token of event.tokens) answer.tokens.push(token)
        }
        break
      }
      case 'finish': {
        const { type: _, index, completion_tokens, cached_tokens = 0, ...end } = event
        answers.completion_tokens += completion_tokens
        answers.cached_tokens += cached_tokens
        answers.choices[index] = { ...part(index), ...end }
        break
      }
      default:
        event satisfies never
    }
  }
  return { answers, add }
}

/**
 * Of every `from` choices the `n` with the highest mean log-probability, the best first, the earlier one
 * among equals. An answer without tokens has none and comes last.
 */
export function best(answers: Answers, n: number, from: number): Answers {
  if (from === n) return answers
  const { choices, ...counts } = answers
  const mean = ({ mean_logprob }: Answer) => mean_logprob ?? Number.NEGATIVE_INFINITY
  const kept: Answer[] = []
  for (let at = 0; at < choices.length; at += from) {
    const group = choices.slice(at, at + from)
    kept.push(...group.sort((a, b) => mean(b) - mean(a) || 0).slice(0, n))
  }
  return { ...counts, choices: kept }
}

async function* follow(first: InferEvent, rest: Events, failed: AbortController): Events {
  try {
    yield first
    yield* rest
  } finally {
    failed.abort(new Error('the request has ended'))
  }
}

async function* shift(events: Events, by: number): Events {
  for await (const event of events)
    yield 'index' in event ? { ...event, index: event.index + by } : event
}

/** Events of all sources in the order in which they come. */
export async function* merge<T>(
  sources: readonly AsyncGenerator<T, void, undefined>[],
): AsyncGenerator<T, void, undefined> {
  type Next = { at: number; result: IteratorResult<T, void> }
  const ask = async (at: number): Promise<Next> => ({ at, result: await sources[at]!.next() })
  const asked = new Map<number, Promise<Next>>(sources.map((_, at) => [at, ask(at)]))
  try {
    while (asked.size > 0) {
      const { at, result } = await Promise.race(asked.values())
      if (result.done) asked.delete(at)
      else {
        // Moved to the end, so that a quick source does not keep the others waiting.
        asked.delete(at)
        asked.set(at, ask(at))
        yield result.value
      }
    }
  } finally {
    for (const waiting of asked.values()) waiting.catch(() => {})
    leave(sources)
  }
}

/** Ends generators without waiting for them: one that is busy ends after what it does now. */
function leave(sources: readonly AsyncGenerator<unknown, void, undefined>[]): void {
  for (const source of sources) source.return().catch(() => {})
}
