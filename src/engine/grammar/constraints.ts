// Which tokens may come next. Owns the grammar thread: one that dies or hangs is replaced, and only the answers it held fail.

import { ApiError, invalidRequest, unavailable } from '../../errors.ts'
import { spawn, type Thread } from '../runtime/thread.ts'
import { type Limits, LOOK, ThreadWatch } from '../runtime/thread-watch.ts'
import { byteLevelAlphabet } from '../tokenizer/token-bytes.ts'
import type { Tokenizer } from '../tokenizer/tokenizer.ts'
import {
  COUNT,
  type GrammarEvent,
  type GrammarRequest,
  type GrammarSource,
  HEAD,
  REFUSED,
} from './request.ts'

/** What one answer is held to. */
export interface Constraint {
  /** A bit for each token of the vocabulary, the lowest bit of the first word for token 0. Valid until `accept`. */
  mask(): Int32Array
  accept(token: number): void
}

/** The constraints of one request; disposing gives their memory back. */
export interface Held extends Disposable {
  readonly constraints: readonly Constraint[]
}

const WORKER = new URL('./worker.ts', import.meta.url)

/** A mask takes a tenth of a millisecond, and grammars that take seconds are no use to anybody. */
const MASK_TIME: Limits = { computed: 5_000, passed: 30_000 }
const COMPILE_TIME: Limits = { computed: 20_000, passed: 300_000 }

const failed = () =>
  unavailable('What holds answers to their schema was interrupted. Please retry.', 1)

const tooComplex = ({ param }: GrammarSource) =>
  invalidRequest(`The schema in '${param}' is too complex: no grammar in time.`, {
    param,
    code: 'invalid_json_schema',
  })

/** Makes constraints for any model; the thread starts with the first. */
export class Constraints {
  #thread: Thread<GrammarRequest, GrammarEvent> | undefined
  readonly #keys = new WeakMap<Tokenizer, string>()
  readonly #alphabet = byteLevelAlphabet()
  readonly #compileTime: Limits
  /** Of the thread that runs. */
  #place: string | undefined
  #last = 0

  constructor({ compileTime = COMPILE_TIME }: { compileTime?: Limits } = {}) {
    this.#compileTime = compileTime
  }

  /**
   * One constraint for each of `count` answers. `vocab_size` is the length of the logits. Throws 400 for a schema
   * that is no grammar or takes too long to compute, 503 when the thread went away or stands still.
   */
  async open(
    source: GrammarSource,
    { tokenizer, vocab_size }: { tokenizer: Tokenizer; vocab_size: number },
    count: number,
  ): Promise<Held> {
    const thread = this.#running()
    const key = this.#key(tokenizer)
    try {
      if (!(await this.#known(thread, key, source))) {
        const tokens = this.#tokens(tokenizer, vocab_size)
        const { eos_token_ids } = tokenizer
        await last(thread.run({ type: 'vocabulary', key, tokens, eos_token_ids }))
        await this.#known(thread, key, source)
      }
    } catch (error) {
      if (error instanceof ApiError) throw error
      throw failed()
    }
    const words = Math.ceil(vocab_size / 32)
    const ids = Array.from({ length: count }, () => ++this.#last)
    const constraints = await Promise.all(
      ids.map(async (id) => {
        const memory = new SharedArrayBuffer(4 * (HEAD + words))
        await last(thread.run({ type: 'open', key, source, id, memory }))
        return this.#constraint(thread, id, new Int32Array(memory))
      }),
    )
    return {
      constraints,
      [Symbol.dispose]: () => {
        if (!thread.closed) for (const id of ids) this.#send(thread, { type: 'close', id })
      },
    }
  }

  #constraint(
    thread: Thread<GrammarRequest, GrammarEvent>,
    id: number,
    memory: Int32Array,
  ): Constraint {
    let wanted = 1
    const bits = memory.subarray(HEAD)
    return {
      mask: () => {
        let watched: ThreadWatch | undefined
        for (let had = Atomics.load(memory, COUNT); had < wanted; ) {
          watched ??= new ThreadWatch(this.#place, MASK_TIME)
          if (thread.closed || watched.look()) {
            this.#drop(thread)
            throw failed()
          }
          Atomics.wait(memory, COUNT, had, LOOK)
          had = Atomics.load(memory, COUNT)
        }
        if (memory[REFUSED]) throw new Error('The grammar refused a token that its mask allowed.')
        return bits
      },
      accept: (token) => {
        wanted++
        this.#send(thread, { type: 'accept', id, token })
      },
    }
  }

  #send(thread: Thread<GrammarRequest, GrammarEvent>, request: GrammarRequest): void {
    last(thread.run(request)).catch(() => {})
  }

  /** Compiles the schema if its vocabulary is known. Others' schemas come first, and their time is not counted. */
  async #known(
    thread: Thread<GrammarRequest, GrammarEvent>,
    key: string,
    source: GrammarSource,
  ): Promise<boolean> {
    let watch: NodeJS.Timeout | undefined
    let late: Error | undefined
    let known = false
    try {
      for await (const event of thread.run({ type: 'compile', key, source })) {
        if (event.type === 'known') known = event.known
        if (event.type !== 'begun') continue
        this.#place = event.place
        const watched = new ThreadWatch(event.place, this.#compileTime)
        watch = setInterval(() => {
          const over = watched.look()
          if (!over) return
          late = over === 'computed' ? tooComplex(source) : failed()
          clearInterval(watch)
          this.#drop(thread)
        }, LOOK)
      }
    } catch (error) {
      throw late ?? error
    } finally {
      clearInterval(watch)
    }
    return known
  }

  #drop(thread: Thread<GrammarRequest, GrammarEvent>): void {
    if (this.#thread === thread) this.#thread = undefined
    void thread.kill()
  }

  #running() {
    if (!this.#thread || this.#thread.closed) this.#thread = spawn(WORKER)
    return this.#thread
  }

  #tokens(tokenizer: Tokenizer, vocab_size: number): string[] {
    const letters = (id: number) =>
      Array.from(tokenizer.bytes(id), (byte) => this.#alphabet[byte]).join('')
    return Array.from({ length: vocab_size }, (_, id) => letters(id))
  }

  #key(tokenizer: Tokenizer): string {
    const known = this.#keys.get(tokenizer)
    if (known) return known
    const key = `vocabulary-${++this.#last}`
    this.#keys.set(tokenizer, key)
    return key
  }
}

async function last(events: AsyncGenerator<GrammarEvent>): Promise<GrammarEvent | undefined> {
  let found: GrammarEvent | undefined
  for await (const event of events) found = event
  return found
}
