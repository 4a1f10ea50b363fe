// Which tokens may come next. Owns the grammar thread: one that dies or hangs is replaced, and only the answers it held fail.

import { ApiError, unavailable } from '../../errors.ts'
import { spawn, type Thread } from '../runtime/thread.ts'
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
const MASK_TIME = 5_000
const COMPILE_TIME = 20_000

const failed = () =>
  unavailable('What holds answers to their schema was interrupted. Please retry.', 1)

/** Makes constraints for any model; the thread starts with the first. */
export class Constraints {
  #thread: Thread<GrammarRequest, GrammarEvent> | undefined
  readonly #keys = new WeakMap<Tokenizer, string>()
  readonly #alphabet = byteLevelAlphabet()
  #last = 0

  /**
   * One constraint for each of `count` answers. `vocab_size` is the length of the logits. Throws 400 for a schema
   * that is no grammar or takes too long, 503 when the thread went away.
   */
  async open(
    source: GrammarSource,
    { tokenizer, vocab_size }: { tokenizer: Tokenizer; vocab_size: number },
    count: number,
  ): Promise<Held> {
    const thread = this.#running()
    const key = this.#key(tokenizer)
    const compile = async () => {
      if (await this.#known(thread, key, source)) return
      const { eos_token_ids } = tokenizer
      await last(
        thread.run({
          type: 'vocabulary',
          key,
          tokens: this.#tokens(tokenizer, vocab_size),
          eos_token_ids,
        }),
      )
      await this.#known(thread, key, source)
    }
    await this.#inTime(thread, compile(), source)
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
        const end = Date.now() + MASK_TIME
        for (let had = Atomics.load(memory, COUNT); had < wanted; ) {
          const left = thread.closed ? 0 : end - Date.now()
          if (left <= 0) {
            this.#drop(thread)
            throw failed()
          }
          Atomics.wait(memory, COUNT, had, left)
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

  async #known(thread: Thread<GrammarRequest, GrammarEvent>, key: string, source: GrammarSource) {
    const event = await last(thread.run({ type: 'compile', key, source }))
    return event?.type === 'known' && event.known
  }

  async #inTime(
    thread: Thread<GrammarRequest, GrammarEvent>,
    work: Promise<void>,
    { param }: GrammarSource,
  ): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        this.#drop(thread)
        reject(
          new ApiError(400, `The schema in '${param}' is too complex: no grammar in time.`, {
            param,
            code: 'invalid_json_schema',
          }),
        )
      }, COMPILE_TIME)
    })
    try {
      await Promise.race([work, late])
    } catch (error) {
      if (error instanceof ApiError) throw error
      throw failed()
    } finally {
      clearTimeout(timer)
      work.catch(() => {})
    }
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
