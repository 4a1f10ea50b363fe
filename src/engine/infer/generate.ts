// Requests in, text out: keeps models resident, turns prompts into sequences, decodes them together.
// One step at a time, each in its own turn on the device.

import { totalmem } from 'node:os'
import { Constraints } from '../grammar/constraints.ts'
import type { Verdict } from '../parity/parity.ts'
import type { HandlerContext, TakeTurn, Turn } from '../runtime/thread.ts'
import { grammarOfTools, syntaxOf } from '../tools/syntax.ts'
import {
  add,
  type Batcher,
  begin,
  createBatcher,
  isAnyoneUnread,
  nextStep,
  occupancy,
  remove,
  type Step,
} from './batcher.ts'
import { describeToken } from './describe.ts'
import type { KvCache } from './kv-cache.ts'
import { certify } from './parity.ts'
import { PrefixCache } from './prefix-cache.ts'
import { checkBias, newTokens, promptTokens } from './prompt.ts'
import { Reader } from './reading.ts'
import type {
  CertifyRequest,
  DecodeRequest,
  GenerateRequest,
  InferEvent,
  Inside,
} from './request.ts'
import { Residents, type ResidentsOptions, type ResidentTarget } from './residents.ts'
import { choicesOf, finishOf, isScored, type Running, tellEcho } from './running.ts'
import { only, penalise, sample } from './sampler.ts'
import { accept, nextOffset, position, takeListed } from './sequence.ts'
import { Speculation } from './speculation.ts'

export interface GeneratorOptions extends ResidentsOptions {
  /** What beginnings of prompts may take; absent: a sixteenth of the machine. */
  readonly prefixBytes?: number
  /** Whether tokens are guessed by what came before: never, where that is faster (absent), or wherever there is a guess. */
  readonly speculate?: boolean | 'always' | undefined
}

/** The inference thread's life: `handle` answers requests, as many at once as come. */
export class Generator {
  readonly #residents: Residents
  readonly #batcher: Batcher<Running> = createBatcher()
  #turn: TakeTurn | undefined
  #stepping = false
  /** The step under way, or the last one. */
  #stepped: Promise<void> = Promise.resolve()
  readonly #left: Running[] = []
  readonly #decoded = { steps: 0, rows: 0 }
  readonly #constraints = new Constraints()

  readonly #prefixes: PrefixCache
  readonly #reader: Reader
  readonly #speculation: Speculation | undefined

  constructor({ prefixBytes = totalmem() / 16, speculate = true, ...options }: GeneratorOptions) {
    this.#speculation = speculate ? new Speculation({ always: speculate === 'always' }) : undefined
    this.#residents = new Residents(options)
    this.#prefixes = new PrefixCache(prefixBytes)
    this.#reader = new Reader(this.#prefixes)
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
        this.#prefixes.clear()
        await this.#residents.clear()
        yield { type: 'ready' }
        break
      case 'forget': {
        const { model } = request.target
        const parted = await this.#residents.part(model)
        // Who has just left may be in the step under way.
        await this.#stepped
        await parted[Symbol.asyncDispose]()
        yield { type: 'ready' }
        break
      }
      case 'generate':
        yield* this.#generate(request, signal)
        break
      default:
        request satisfies never
    }
  }

  /** What is going on here. */
  get inside(): Inside {
    return {
      ...occupancy(this.#batcher),
      adapters: this.#residents.usage,
      prefixes: this.#prefixes.usage,
      decode: { ...this.#decoded, width: this.#batcher.width },
      guesses: this.#speculation?.usage ?? { drafted: 0, accepted: 0 },
    }
  }

  /** Whether the target is served as it was trained. */
  certify(request: CertifyRequest, turn: TakeTurn): Promise<Verdict> {
    return certify(this.#residents, request, turn)
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
    const { tokenizer, checkpoint } = target
    const { vocab_size } = checkpoint.config
    const tool_syntax = request.tool_use && syntaxOf(checkpoint.chat_template)
    const grammar =
      request.grammar ??
      (request.tool_use && tool_syntax && grammarOfTools(tool_syntax, request.tool_use))
    using held =
      grammar && (await this.#constraints.open(grammar, { tokenizer, vocab_size }, request.n))
    yield { type: 'prompt', prompt_tokens: prompt.length, ...(tool_syntax && { tool_syntax }) }

    const events: (InferEvent | { error: unknown })[] = []
    let wake = () => {}
    const emit = (event: InferEvent | { error: unknown }) => {
      events.push(event)
      wake()
    }
    const onAbort = () => wake()
    signal.addEventListener('abort', onAbort)

    const { constraints } = held ?? {}
    const shared = choicesOf(
      request,
      { prompt, max_tokens, target, constraints, emit },
      (target) => (request.batch_invariant ? apart(target) : target),
    )
    const running = [...shared.choices]
    const scored = isScored(shared)
    const enqueue = (r: Running) =>
      add(this.#batcher, r.target.batch.key, r, {
        owner: shared,
        low: request.low_priority === true,
      })
    try {
      if (shared.echo && !scored) tellEcho(shared)
      for (const r of running) {
        if (!r.sequence.finish_reason) enqueue(r)
        else if (!scored) emit(finishOf(r))
        else if (r === running[0]) enqueue(r) // it ends them all
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
      for (let step = this.#next(); step; step = this.#next()) {
        this.#stepped = this.#step(step)
        await this.#stepped
        for (const r of this.#left.splice(0)) this.#free(r)
      }
    } finally {
      this.#stepping = false
    }
  }

  #next(): Step<Running> | undefined {
    return nextStep(this.#batcher, this.#reader.fits())
  }

  #takeTurn(): Promise<Turn> {
    return this.#turn!({ pressing: isAnyoneUnread(this.#batcher) })
  }

  async #step(step: Step<Running>): Promise<void> {
    try {
      if (step.type === 'prefill') await this.#prefill(step.sequences, step.alone)
      else await this.#decode(step.sequences)
    } catch (error) {
      for (const r of step.sequences) {
        this.#leave(r)
        r.emit({ error })
      }
    }
  }

  /** Reads one piece more of a prompt, or some short ones whole; the last piece begins the answer. */
  async #prefill(sequences: readonly Running[], alone: boolean): Promise<void> {
    for (const { shared } of sequences) shared.begun ??= performance.now()
    const [r, ...others] = sequences.filter((r) => !this.#copyTwin(r))
    if (!r) return
    if (others.length > 0) return this.#readTogether([r, ...others])
    const reading = this.#reader.start(r)
    r.reading = reading
    const { cache } = reading
    const scored = isScored(r.shared)
    using _turn = await this.#takeTurn()
    const { count, logits } = await this.#reader.read(r, reading, alone)
    if (scored) this.#tellScores(r, logits)
    reading.read += count
    if (r.gone || reading.read < r.sequence.prompt.length) return
    if (!(scored && r.invariant)) this.#reader.keep(r, cache, 0, r.sequence.prompt)
    if (scored && r.sequence.finish_reason)
      for (const choice of r.shared.choices) this.#finish(choice)
    else this.#begin(r, cache, 0, logits.at(-1)!.slice()) // the other rows need not stay
  }

  async #readTogether(sequences: readonly Running[]): Promise<void> {
    using _turn = await this.#takeTurn()
    const { cache, logits } = await this.#reader.together(sequences)
    for (const [slot, r] of sequences.entries()) {
      if (r.gone) continue
      this.#reader.keep(r, cache, slot, r.sequence.prompt)
      this.#begin(r, cache, slot, logits[slot]!.slice())
    }
  }

  /** Another choice's prompt is ours; whether there was one. */
  #copyTwin(r: Running): boolean {
    const { choices, logits } = r.shared
    const twin = choices.find((other) => other !== r && !other.gone && other.sequence.tokens.length)
    if (twin?.slot === undefined || !logits) return false
    this.#enter(r)
    const [from, to] = [twin.target.batch.cache, r.target.batch.cache]
    to.copy(from, twin.slot, r.slot!, r.sequence.prompt.length)
    this.#accept(r, logits)
    return true
  }

  #tellScores({ shared, reading, sequence, target }: Running, rows: readonly Float32Array[]): void {
    const { tokenizer } = target
    const { read } = reading!
    shared.echo?.score(read + 1, rows, { top: shared.top ?? 0, tokenizer })
    if (shared.echo && read + rows.length === sequence.prompt.length) tellEcho(shared)
  }

  /** From here on it lies among those that are decoded. */
  #enter(r: Running): void {
    const { cache, slots } = r.target.batch
    r.slot = cache.open(r.sequence.prompt.length + 1)
    slots[r.slot] = r
    begin(this.#batcher, r)
  }

  /** The prompt was read. */
  #begin(r: Running, cache: KvCache, slot: number, logits: Float32Array): void {
    this.#enter(r)
    r.target.batch.cache.copy(cache, slot, r.slot!)
    r.reading = undefined
    if (r.shared.choices.length > 1) r.shared.logits = logits
    this.#accept(r, logits)
  }

  /** One token more for each: together, or each by itself where its bytes must not depend on the others. */
  async #decode(sequences: readonly Running[]): Promise<void> {
    for (const batch of new Set(sequences.map(({ target }) => target.batch))) {
      const { decoder, cache, slots } = batch
      const rows = slots.slice(0, cache.count) as Running[]
      const [only] = rows
      if (only && rows.length === 1 && (await this.#guess(only))) continue
      this.#decoded.steps++
      this.#decoded.rows += rows.length
      using _turn = await this.#takeTurn()
      const began = performance.now()
      const logits = await decoder.decode(
        cache,
        rows.map((r) => r.sequence.tokens.at(-1)!),
        rows.map((r) => r.target.adapter),
      )
      if (rows.length === 1) this.#speculation?.ran(decoder, 1, performance.now() - began)
      for (const [i, r] of rows.entries()) if (!r.gone) this.#accept(r, logits[i]!)
    }
  }

  /** Several tokens in one run for a sequence that is alone, where a guess pays; whether one was made. */
  async #guess(r: Running): Promise<boolean> {
    const speculation = this.#speculation
    if (!speculation || r.invariant) return false
    const { prompt, tokens, max_tokens } = r.sequence
    const most = max_tokens - tokens.length - 1
    const { decoder, cache } = r.target.batch
    const draft = speculation.draft(decoder, r.guessing, [...prompt, ...tokens], most)
    if (draft.length === 0) return false
    const { adapter } = r.target
    this.#decoded.steps++
    this.#decoded.rows++
    using _turn = await this.#takeTurn()
    const began = performance.now()
    const before = cache.length(0)
    const read = [tokens.at(-1)!, ...draft]
    const logits = await decoder.read(cache, 0, read, { adapter, everywhere: true })
    speculation.ran(decoder, read.length, performance.now() - began)
    let right = 0
    for (const row of logits) {
      if (r.gone) break
      this.#accept(r, row)
      // Only what the sampler drew by itself goes on.
      if (r.sequence.tokens.at(-1) !== draft[right]) break
      right++
    }
    cache.truncate(0, before + 1 + right)
    speculation.judged(r.guessing, draft.length, right)
    return true
  }

  #accept(r: Running, logits: Float32Array): void {
    const { sequence, shared } = r
    const { tokenizer } = r.target
    const { index, sampling } = sequence
    const shaped = penalise(logits, sampling, sequence)
    const allowed = r.constraint ? only(shaped, r.constraint.mask()) : shaped
    const { token } = sample(allowed, sampling, index, position(sequence))
    r.constraint?.accept(token)
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
    r.reading = undefined
    if (r.slot === undefined) return
    const { slots, cache } = r.target.batch
    const { prompt, tokens } = r.sequence
    // A conversation goes on from here: its next prompt begins with this answer.
    if (!r.invariant)
      this.#reader.keep(r, cache, r.slot, [...prompt, ...tokens].slice(0, cache.length(r.slot)))
    const moved = cache.close(r.slot)
    if (moved !== undefined) {
      const other = slots[moved] as Running
      other.slot = r.slot
      slots[r.slot] = other
    }
    slots.length = cache.count
    r.slot = undefined
  }
}

/**
 * The target with a cache for one sequence alone: how many rows a product has, and how far the cache reaches, decides how
 * sums are rounded. Such sequences of one base take turns among themselves.
 */
function apart(target: ResidentTarget): ResidentTarget {
  const { key, decoder } = target.batch
  const batch = { key: `${key}\ninvariant`, decoder, cache: decoder.newCache(), slots: [] }
  return { ...target, batch }
}
