// Requests in, text out: keeps models resident, turns prompts into sequences, decodes them together.
// One step at a time, each in its own turn on the device.

import { invalidRequest } from '../../errors.ts'
import type { HandlerContext, TakeTurn } from '../runtime/thread.ts'
import { encodeChatPrompt } from '../tokenizer/assistant-mask.ts'
import { add, type Batcher, createBatcher, nextStep, remove, type Step } from './batcher.ts'
import type { GenerateRequest, InferEvent, InferThreadRequest } from './request.ts'
import { Residents, type ResidentTarget } from './residents.ts'
import { sample } from './sampler.ts'
import { accept, createSequence, position, type Sequence } from './sequence.ts'

/** Longer prompts are read in pieces, so that no turn on the device gets long. */
const PREFILL_TOKENS = 512

/** A sequence under way: where it lies in its target's cache, and who waits for its text. */
interface Running {
  readonly sequence: Sequence
  readonly target: ResidentTarget
  slot: number | undefined
  /** What the choices of one request have in common. */
  readonly shared: SharedPrompt
  /** The prompt has no text, so that the first token begins one. */
  readonly bare: boolean
  /** Finished, failed or aborted: it gets no more tokens. */
  gone: boolean
  readonly emit: (event: InferEvent | { error: unknown }) => void
}

/** The prompt of several choices: computed for the first, copied for those that come while it is still there. */
interface SharedPrompt {
  readonly choices: Running[]
  /** The logits after it. */
  logits: Float32Array | undefined
}

/** The inference thread's life: `handle` answers requests, as many at once as come. */
export class Generator {
  readonly #residents: Residents
  readonly #batcher: Batcher<Running> = createBatcher()
  #turn: TakeTurn | undefined
  #stepping = false
  readonly #left: Running[] = []

  constructor(threads: number) {
    this.#residents = new Residents(threads)
  }

  async *handle(
    request: InferThreadRequest,
    { signal, turn }: HandlerContext,
  ): AsyncGenerator<InferEvent, void, undefined> {
    this.#turn = turn
    switch (request.type) {
      case 'load':
        await this.#residents.get(request.target)
        yield { type: 'ready' }
        break
      case 'unload':
        await this.#residents.clear()
        yield { type: 'ready' }
        break
      case 'generate':
        yield* this.#generate(request, signal)
        break
      default:
        request satisfies never
    }
  }

  async *#generate(
    request: GenerateRequest,
    signal: AbortSignal,
  ): AsyncGenerator<InferEvent, void, undefined> {
    const target = await this.#residents.get(request.target)
    const prompt = promptTokens(request, target)
    const max_tokens = newTokens(request, prompt.length, target)
    yield { type: 'prompt', prompt_tokens: prompt.length }

    const events: (InferEvent | { error: unknown })[] = []
    let wake = () => {}
    const emit = (event: InferEvent | { error: unknown }) => {
      events.push(event)
      wake()
    }
    const onAbort = () => wake()
    signal.addEventListener('abort', onAbort)

    const shared: SharedPrompt = { choices: [], logits: undefined }
    const running: Running[] = Array.from({ length: request.n }, (_, index) => ({
      sequence: createSequence({
        index,
        prompt,
        sampling: request.sampling,
        max_tokens,
        stop: request.stop,
        eos_token_ids: target.tokenizer.eos_token_ids,
      }),
      target,
      slot: undefined,
      shared,
      bare: prompt.every((id) => target.tokenizer.isSpecial(id)),
      gone: false,
      emit,
    }))
    shared.choices.push(...running)
    target.users++
    try {
      for (const r of running) {
        if (r.sequence.finish_reason) emit(finishOf(r.sequence))
        else add(this.#batcher, target.key, r, shared)
      }
      void this.#pump()
      let open = running.length
      while (open > 0 && !signal.aborted) {
        const event = events.shift()
        if (!event) {
          await new Promise<void>((resolve) => {
            wake = resolve
          })
          continue
        }
        if ('error' in event) throw event.error
        if (event.type === 'finish') open--
        yield event
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
      for (const r of running) this.#leave(r)
      target.users--
    }
  }

  /** Steps as long as there is work. Whoever left during a step is taken out after it. */
  async #pump(): Promise<void> {
    if (this.#stepping) return
    this.#stepping = true
    try {
      for (let step = nextStep(this.#batcher); step; step = nextStep(this.#batcher)) {
        await this.#step(step)
        for (const r of this.#left.splice(0)) this.#free(r)
      }
    } finally {
      this.#stepping = false
    }
  }

  async #step(step: Step<Running>): Promise<void> {
    try {
      if (step.type === 'prefill') await this.#prefill(step.sequence)
      else await this.#decode(step.sequences)
    } catch (error) {
      for (const r of step.type === 'prefill' ? [step.sequence] : step.sequences) {
        this.#leave(r)
        r.emit({ error })
      }
    }
  }

  async #prefill(r: Running): Promise<void> {
    const { decoder, slots } = r.target
    const { shared } = r
    const { prompt } = r.sequence
    r.slot = decoder.cache.open(prompt.length + 1)
    slots[r.slot] = r
    const { choices, logits } = shared
    const twin = choices.find((other) => other !== r && !other.gone && other.sequence.tokens.length)
    if (twin?.slot !== undefined && logits) {
      decoder.cache.copy(twin.slot, r.slot, prompt.length)
      this.#accept(r, logits)
      return
    }
    for (let read = 0; read < prompt.length && !r.gone; read += PREFILL_TOKENS) {
      const piece = prompt.slice(read, read + PREFILL_TOKENS)
      using _turn = await this.#turn!()
      const logits = await decoder.prefill(r.slot, piece)
      if (read + piece.length < prompt.length) continue
      if (shared.choices.length > 1) shared.logits = logits
      this.#accept(r, logits)
    }
  }

  async #decode(sequences: readonly Running[]): Promise<void> {
    const { decoder, slots } = sequences[0]!.target
    const rows = slots.slice(0, decoder.cache.count) as Running[]
    using _turn = await this.#turn!()
    const logits = await decoder.decode(rows.map((r) => r.sequence.tokens.at(-1)!))
    for (const [i, r] of rows.entries()) if (!r.gone) this.#accept(r, logits[i]!)
  }

  #accept(r: Running, logits: Float32Array): void {
    const { sequence, target } = r
    const { token } = sample(logits, sequence.sampling, sequence.index, position(sequence))
    const { tokenizer } = target
    const first = r.bare && sequence.tokens.every((id) => tokenizer.isSpecial(id))
    const text = accept(sequence, token, tokenizer.bytes(token, first))
    if (text !== '') r.emit({ type: 'delta', index: sequence.index, text })
    if (!sequence.finish_reason) return
    this.#leave(r)
    r.emit(finishOf(sequence))
  }

  /** Takes a sequence out, finished, failed or aborted; at once, or after the step that may be using its slot. */
  #leave(r: Running): void {
    if (r.gone) return
    r.gone = true
    remove(this.#batcher, r)
    if (this.#stepping) this.#left.push(r)
    else this.#free(r)
  }

  #free(r: Running): void {
    if (r.slot === undefined) return
    const { slots, decoder } = r.target
    const moved = decoder.cache.close(r.slot)
    if (moved !== undefined) {
      const other = slots[moved] as Running
      other.slot = r.slot
      slots[r.slot] = other
    }
    slots.length = decoder.cache.count
    r.slot = undefined
  }
}

const finishOf = ({ index, finish_reason, tokens }: Sequence): InferEvent => ({
  type: 'finish',
  index,
  finish_reason: finish_reason!,
  completion_tokens: tokens.length,
})

/** Messages by the model's own template; a plain text gets what the tokenizer puts before every text. */
function promptTokens({ prompt }: GenerateRequest, target: ResidentTarget): number[] {
  const { checkpoint, tokenizer } = target
  if ('tokens' in prompt) return knownTokens(prompt.tokens, checkpoint.config.vocab_size)
  if ('text' in prompt) return tokenizer.encode(prompt.text, { special: true })
  return encodeChatPrompt({ tokenizer, chat_template: checkpoint.chat_template }, prompt)
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
function newTokens(
  request: GenerateRequest,
  promptLength: number,
  { checkpoint }: ResidentTarget,
): number {
  const context = checkpoint.config.max_position_embeddings
  const { prompt, max_tokens } = request
  const where = 'messages' in prompt ? 'messages' : 'prompt'
  const code = 'context_length_exceeded'
  const limit = `This model's maximum context length is ${context} tokens.`
  if (promptLength === 0) throw invalidRequest('The prompt is empty.', { param: where })
  if (promptLength >= context)
    throw invalidRequest(
      `${limit} However, your ${where} resulted in ${promptLength} tokens. Please reduce the length of the ${where}.`,
      { param: where, code },
    )
  if (max_tokens !== undefined && promptLength + max_tokens > context)
    throw invalidRequest(
      `${limit} However, you requested ${promptLength + max_tokens} tokens (${promptLength} in the ${where}, ${max_tokens} in the completion). Please reduce the length of the ${where} or the completion.`,
      { param: 'max_tokens', code },
    )
  return max_tokens ?? context - promptLength
}
