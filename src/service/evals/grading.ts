// The grading thread and its limits: what clients wrote is worked on there, one thing at a time, and a thread that
// takes too long or too much memory is ended with whatever it was doing.

import type { CompareRequest, Comparison } from '../../engine/eval/compare.ts'
import type { PromptExample } from '../../engine/eval/examples.ts'
import type { Answered, Question } from '../../engine/eval/grade.ts'
import type { GradeFault, Grader, Subject } from '../../engine/eval/grader.ts'
import type { Item, ItemSchema } from '../../engine/eval/items.ts'
import type { InputMessages, PromptMessage } from '../../engine/eval/prompt.ts'
import type { Graded, GradeThreadEvent, GradeThreadRequest } from '../../engine/eval/request.ts'
import { spawn, type Thread } from '../../engine/runtime/thread.ts'
import { ApiError, invalidRequest } from '../../errors.ts'

/** What is graded by one thing takes a fraction of this; scripts have a shorter limit of their own. */
const LIMIT_MS = 15_000
const MEMORY_MB = 384
const TICK_MS = 250

const WORKER = new URL('../../engine/eval/worker.ts', import.meta.url)

/** The thread was ended: the reason may be told. */
export class GradingStopped extends Error {
  override readonly name = 'GradingStopped'
}

type Fault = { fault: GradeFault; message: string }

/** A row that does not fit; `line` where it came from a file. */
export interface BadItem {
  index: number
  line?: number
  error: string
}

/** Owns one grading thread; it starts when it is first needed, and again after it was ended. */
export class Grading implements AsyncDisposable {
  readonly #limit_ms: number
  #thread: Thread<GradeThreadRequest, GradeThreadEvent> | undefined
  #last: Promise<unknown> = Promise.resolve()
  #disposed = false

  constructor({ limit_ms = LIMIT_MS }: { limit_ms?: number } = {}) {
    this.#limit_ms = limit_ms
  }

  /** Throws ApiError at the first grader that cannot work. */
  async check(graders: { grader: Grader; param: string }[]): Promise<void> {
    try {
      await this.#inLine(() => this.#first({ type: 'check', graders }))
    } catch (error) {
      if (!(error instanceof GradingStopped)) throw error
      throw invalidRequest(`The graders cannot be checked: ${error.message}`, {
        param: graders[0]?.param ?? null,
        code: 'invalid_grader',
      })
    }
  }

  /** For each grader what must be asked of models, or why that cannot be said. */
  async questions(graders: Grader[], subject: Subject): Promise<(Question[] | Fault)[]> {
    const event = await this.#faulty({ type: 'questions', graders, subject }, 'questions')
    return 'questions' in event ? event.questions : graders.map(() => event)
  }

  /** For each grader its grade, or why there is none. */
  async grade(graders: Grader[], subject: Subject, answered: Answered[]): Promise<Graded[]> {
    const event = await this.#faulty({ type: 'grade', graders, subject, answered }, 'graded')
    return 'graded' in event ? event.graded : graders.map(() => event)
  }

  /** The messages that a row is asked with, or why there are none. */
  async prompt(input: InputMessages, subject: Subject): Promise<PromptMessage[] | Fault> {
    const event = await this.#faulty({ type: 'prompt', input, subject }, 'prompt')
    return 'prompt' in event ? event.prompt : event
  }

  /** Examples out of a training file, of as many different outputs as there is room for. */
  async examples(path: string, limit: number, seed: number): Promise<PromptExample[]> {
    const event = await this.#inLine(() => this.#first({ type: 'examples', path, limit, seed }))
    if (event.type !== 'examples') throw new Error(`Grading answered ${event.type}.`)
    return event.examples
  }

  /** Runs beside each other: minutes of reckoning where there are many of them, rows and criteria. */
  async compare(request: CompareRequest): Promise<Comparison> {
    return await this.#inLine(async () => {
      for await (const event of this.#run({ type: 'compare', ...request }))
        if (event.type === 'compared') return event.comparison
      throw new Error('Grading ended without a comparison.')
    })
  }

  /** The first row that does not fit. */
  async badItem(items: unknown[], schema: ItemSchema): Promise<BadItem | undefined> {
    return await this.#inLine(async () => {
      for await (const event of this.#run({ type: 'check_items', items, schema }))
        if (event.type === 'bad_item') return event
      return undefined
    })
  }

  /** Rows of a file from the one at `from` on. No other call is answered until it has ended. */
  async *readItems(
    path: string,
    schema: ItemSchema,
    from: number,
  ): AsyncGenerator<{ index: number; item: Item } | BadItem, void, undefined> {
    for await (const event of this.#run({ type: 'read_items', path, schema, from }))
      if (event.type === 'item' || event.type === 'bad_item') yield event
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true
    await this.#thread?.kill()
  }

  async #faulty<Type extends 'questions' | 'graded' | 'prompt'>(
    request: GradeThreadRequest,
    type: Type,
  ): Promise<Extract<GradeThreadEvent, { type: Type }> | Fault> {
    try {
      const event = await this.#inLine(() => this.#first(request))
      if (event.type !== type) throw new Error(`Grading answered ${event.type}, expected ${type}.`)
      return event as Extract<GradeThreadEvent, { type: Type }>
    } catch (error) {
      if (!(error instanceof GradingStopped)) throw error
      return { fault: 'other_error', message: error.message }
    }
  }

  async #first(request: GradeThreadRequest): Promise<GradeThreadEvent> {
    for await (const event of this.#run(request)) return event
    throw new Error(`Grading ended without an answer to ${request.type}.`)
  }

  /** The limit is for each step: a file is long, a row of it is not. */
  async *#run(request: GradeThreadRequest): AsyncGenerator<GradeThreadEvent, void, undefined> {
    const thread = this.#running()
    const events = thread.run(request)
    try {
      while (true) {
        const next = await this.#inTime(thread, events.next())
        if (next.done) return
        yield next.value
      }
    } finally {
      if (!thread.closed) await events.return()
    }
  }

  async #inTime<T>(thread: Thread<GradeThreadRequest, GradeThreadEvent>, step: Promise<T>) {
    let late = false
    // In ticks, none of which counts for more than it should take: a machine that stands still takes nobody's time.
    let [left, last] = [this.#limit_ms, performance.now()]
    const timer = setInterval(() => {
      const now = performance.now()
      left -= Math.min(now - last, 2 * TICK_MS)
      last = now
      if (left > 0 || late) return
      late = true
      void thread.kill()
    }, TICK_MS)
    try {
      return await step
    } catch (error) {
      if (error instanceof ApiError || this.#disposed) throw error
      if (late) throw new GradingStopped(`it took longer than ${this.#limit_ms / 1000} s.`)
      if (!thread.closed) throw error
      throw new GradingStopped(`it needed more memory than ${MEMORY_MB} MB.`, { cause: error })
    } finally {
      clearInterval(timer)
    }
  }

  #running() {
    if (this.#disposed) throw new Error('Grading has ended.')
    if (!this.#thread || this.#thread.closed)
      this.#thread = spawn(WORKER, undefined, undefined, { maxOldGenerationSizeMb: MEMORY_MB })
    return this.#thread
  }

  /** One after the other, so that a thread is ended for its own fault alone. */
  #inLine<T>(f: () => Promise<T>): Promise<T> {
    const done = this.#last.then(f, f)
    this.#last = done.catch(() => {})
    return done
  }
}
