// Requests in, text out: keeps models resident, turns prompts into sequences, decodes them together.
// One step at a time, each in its own turn on the device.

import type { HandlerContext, TakeTurn } from '../runtime/thread.ts'
import { add, type Batcher, createBatcher, nextStep, remove, type Step } from './batcher.ts'
import { describeToken, type EchoedPrompt, echoOf } from './describe.ts'
import { checkBias, newTokens, promptTokens } from './prompt.ts'
import type { DecodeRequest, GenerateRequest, InferEvent, ListedToken } from './request.ts'
import { Residents, type ResidentTarget } from './residents.ts'
import { penalise, sample } from './sampler.ts'
import {
  accept,
  createSequence,
  nextOffset,
  position,
  type Sequence,
  takeListed,
} from './sequence.ts'

/** Longer prompts are read in pieces, so that no turn on the device gets long. */
const PREFILL_TOKENS = 512

/** Shorter pieces where the logits of every place are wanted: 128 rows of 49,152 are 25 MB. */
const SCORED_TOKENS = 128

/** A sequence under way: where it lies in its target's cache, and who waits for its text. */
interface Running {
  readonly sequence: Sequence
  readonly target: ResidentTarget
  slot: number | undefined
  /** What the choices of one request have in common. */
  readonly shared: SharedPrompt
  /** The prompt has no text, so that the first token begins one. */
  readonly bare: boolean
  /** The sum over the answer so far, and the token that ended it; where log-probabilities are told. */
  logprob: number
  end_token: ListedToken | undefined
  /** Finished, failed or aborted: it gets no more tokens. */
  gone: boolean
  readonly emit: (event: InferEvent | { error: unknown }) => void
}

/** The prompt of several choices: computed for the first, copied for those that come while it is still there. */
interface SharedPrompt {
  readonly choices: Running[]
  /** The logits after it. */
  logits: Float32Array | undefined
  /** How many alternatives each token is told with; absent: no log-probabilities. */
  readonly top: number | undefined
  /** Told before the first token; its log-probabilities come with the first choice's prefill. */
  echo: EchoedPrompt | undefined
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
    request: DecodeRequest,
    { signal, turn }: HandlerContext,
  ): AsyncGenerator<InferEvent, void, undefined> {
    this.#turn = turn
    switch (request.type) {
      case 'load':
        ;(await this.#residents.use(request.target))[Symbol.dispose]()
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
    using lease = await this.#residents.use(request.target)
    const { target } = lease
    const prompt = promptTokens(request, target)
    const max_tokens = newTokens(request, prompt.length, target)
    checkBias(request, target)
    yield { type: 'prompt', prompt_tokens: prompt.length }

    const events: (InferEvent | { error: unknown })[] = []
    let wake = () => {}
    const emit = (event: InferEvent | { error: unknown }) => {
      events.push(event)
      wake()
    }
    const onAbort = () => wake()
    signal.addEventListener('abort', onAbort)

    const { logprobs: top, echo } = request
    const shared: SharedPrompt = {
      choices: [],
      logits: undefined,
      top,
      echo: echo ? echoOf(request.prompt, prompt, target.tokenizer) : undefined,
    }
    const scored = shared.echo !== undefined && top !== undefined
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
      logprob: 0,
      end_token: undefined,
      gone: false,
      emit,
    }))
    shared.choices.push(...running)
    try {
      if (shared.echo && !scored) tellEcho(shared)
      for (const r of running) {
        if (!r.sequence.finish_reason) add(this.#batcher, target.key, r, shared)
        else if (!scored) emit(finishOf(r))
        else if (r === running[0]) add(this.#batcher, target.key, r, shared) // it ends them all
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
    if (shared.echo && shared.top !== undefined) return this.#score(r)
    for (let read = 0; read < prompt.length && !r.gone; read += PREFILL_TOKENS) {
      const piece = prompt.slice(read, read + PREFILL_TOKENS)
      using _turn = await this.#turn!()
      const logits = await decoder.prefill(r.slot, piece)
      if (read + piece.length === prompt.length) this.#begin(r, logits)
    }
  }

  /** Reads a prompt whose log-probabilities are wanted, and tells them. */
  async #score(r: Running): Promise<void> {
    const { decoder, tokenizer } = r.target
    const { shared } = r
    const { prompt } = r.sequence
    for (let read = 0; read < prompt.length && !r.gone; read += SCORED_TOKENS) {
      const piece = prompt.slice(read, read + SCORED_TOKENS)
      using _turn = await this.#turn!()
      const rows = await decoder.score(r.slot!, piece)
      shared.echo?.score(read + 1, rows, { top: shared.top ?? 0, tokenizer })
      if (read + piece.length < prompt.length) continue
      if (shared.echo) tellEcho(shared)
      if (r.sequence.finish_reason) for (const choice of shared.choices) this.#finish(choice)
      else this.#begin(r, rows.at(-1)!.slice()) // the other rows need not stay
    }
  }

  /** The prompt was read. */
  #begin(r: Running, logits: Float32Array): void {
    if (r.shared.choices.length > 1) r.shared.logits = logits
    this.#accept(r, logits)
  }

  async #decode(sequences: readonly Running[]): Promise<void> {
    const { decoder, slots } = sequences[0]!.target
    const rows = slots.slice(0, decoder.cache.count) as Running[]
    using _turn = await this.#turn!()
    const logits = await decoder.decode(rows.map((r) => r.sequence.tokens.at(-1)!))
    for (const [i, r] of rows.entries()) if (!r.gone) this.#accept(r, logits[i]!)
  }

  #accept(r: Running, logits: Float32Array): void {
    const { sequence, shared } = r
    const { tokenizer } = r.target
    const { index, sampling } = sequence
    const { token } = sample(
      penalise(logits, sampling, sequence),
      sampling,
      index,
      position(sequence),
    )
    const first = r.bare && sequence.tokens.every((id) => tokenizer.isSpecial(id))
    const described =
      shared.top === undefined
        ? undefined
        : describeToken(logits, token, { top: shared.top, tokenizer, first })
    r.logprob += described?.logprob ?? 0
    if (described && sequence.eos_token_ids.includes(token))
      r.end_token = { ...described, offset: nextOffset(sequence) }

    const text = accept(sequence, token, tokenizer.bytes(token, first), described)
    const tokens = takeListed(sequence)
    if (text !== '' || tokens.length > 0)
      r.emit({ type: 'delta', index, text, ...(tokens.length > 0 && { tokens }) })
    if (sequence.finish_reason) this.#finish(r)
  }

  #finish(r: Running): void {
    this.#leave(r)
    r.emit(finishOf(r))
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

/** Gives every choice the prompt, once; before any of them has a token. */
function tellEcho(shared: SharedPrompt): void {
  const { text, tokens } = shared.echo!
  shared.echo = undefined
  for (const { sequence, emit } of shared.choices)
    emit({
      type: 'echo',
      index: sequence.index,
      text,
      ...(shared.top !== undefined && { tokens }),
    })
}

function finishOf({ sequence, shared, logprob, end_token }: Running): InferEvent {
  const { index, finish_reason, tokens } = sequence
  return {
    type: 'finish',
    index,
    finish_reason: finish_reason!,
    completion_tokens: tokens.length,
    ...(shared.top !== undefined && tokens.length > 0 && { mean_logprob: logprob / tokens.length }),
    ...(end_token && { end_token }),
  }
}
