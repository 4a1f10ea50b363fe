// A javascript grader in an isolate: QuickJS as WebAssembly, which has the language and nothing of the host, in a
// memory of its own that cannot grow past its end. A new one for each grading: nothing is kept from row to row.

import variant from '@jitl/quickjs-wasmfile-release-sync'
import {
  newQuickJSWASMModuleFromVariant,
  newVariant,
  type QuickJSContext,
  type QuickJSHandle,
  type QuickJSSyncVariant,
} from 'quickjs-emscripten-core'
import { GradeError, type Subject } from './grader.ts'

// The package's types are those of its CommonJS half, which has the variant one level deeper.
const quickjs = variant as unknown as QuickJSSyncVariant

/** The types of Node have no WebAssembly; the memory goes to QuickJS as it is. */
const { Memory } = (
  globalThis as unknown as {
    WebAssembly: { Memory: new (size: { initial: number; maximum: number }) => never }
  }
).WebAssembly

export interface ScriptLimits {
  milliseconds: number
  /** Of the isolate as a whole. */
  megabytes: number
}

export const SCRIPT_LIMITS: ScriptLimits = { milliseconds: 2000, megabytes: 64 }

const PAGES_OF_MEGABYTE = 16
const FIRST_PAGES = 256
const STACK_BYTES = 256 * 1024
/** What QuickJS itself may allocate; the rest is its own code, stack and tables. */
const HEAP_SHARE = 0.75

/** What `grade(sample, item)` of the source gives. Throws what the script threw, or which limit it met. */
export const runScript = (
  source: string,
  { sample, item }: Subject,
  limits: ScriptLimits = SCRIPT_LIMITS,
): Promise<number> =>
  inIsolate(limits, (isolate) => {
    isolate.run(source)
    using grade = isolate.run("typeof grade === 'function' ? grade : undefined")
    if (isolate.context.typeof(grade) !== 'function')
      throw runtimeError('The source defines no function `grade(sample, item)`.')
    using result = isolate.call(grade, [sample, item])
    const type = isolate.context.typeof(result)
    const score = type === 'number' ? isolate.context.getNumber(result) : Number.NaN
    if (Number.isFinite(score)) return score
    throw runtimeError(`grade(sample, item) must return a number, found ${found(type, score)}.`)
  })

/** Whether the source can be read; it is not run. Throws where it cannot. */
export const checkScript = (source: string): Promise<void> =>
  inIsolate(SCRIPT_LIMITS, (isolate) => {
    // A function's body is parsed and never called.
    isolate.run(`(function () {\n${source}\n})`)[Symbol.dispose]()
  })

interface Isolate {
  readonly context: QuickJSContext
  run(source: string): QuickJSHandle
  call(f: QuickJSHandle, values: readonly unknown[]): QuickJSHandle
}

async function inIsolate<T>(limits: ScriptLimits, body: (isolate: Isolate) => T): Promise<T> {
  const wasmMemory = new Memory({
    initial: FIRST_PAGES,
    maximum: limits.megabytes * PAGES_OF_MEGABYTE,
  })
  const module = await newQuickJSWASMModuleFromVariant(newVariant(quickjs, { wasmMemory }))
  const runtime = module.newRuntime()
  runtime.setMemoryLimit(limits.megabytes * 2 ** 20 * HEAP_SHARE)
  runtime.setMaxStackSize(STACK_BYTES)
  const end = performance.now() + limits.milliseconds
  runtime.setInterruptHandler(() => performance.now() > end)
  const context = runtime.newContext()

  const settle = (result: ReturnType<QuickJSContext['evalCode']>): QuickJSHandle => {
    if (!result.error) return result.value
    using error = result.error
    throw describe(context, error, { limits, late: performance.now() > end })
  }
  const parse = (value: unknown): QuickJSHandle => {
    using json = context.getProp(context.global, 'JSON')
    using f = context.getProp(json, 'parse')
    using text = context.newString(JSON.stringify(value ?? null))
    return settle(context.callFunction(f, json, text))
  }
  try {
    return body({
      context,
      run: (source) => settle(context.evalCode(source, 'grader.js')),
      call: (f, values) => settle(context.callFunction(f, context.undefined, ...values.map(parse))),
    })
  } catch (error) {
    if (error instanceof GradeError) throw error
    throw runtimeError(`The script was stopped: ${error instanceof Error ? error.message : error}.`)
  }
  // The isolate is garbage from here on, all of it: nothing of it is freed piece by piece.
}

/** Reads an error as the script left it, which may be anything. */
function describe(
  context: QuickJSContext,
  error: QuickJSHandle,
  { limits, late }: { limits: ScriptLimits; late: boolean },
): GradeError {
  if (late) return runtimeError(`The script ran longer than ${limits.milliseconds} ms.`)
  const read = (name: string) => {
    try {
      using value = context.getProp(error, name)
      return context.typeof(value) === 'string' ? context.getString(value).slice(0, 500) : undefined
    } catch {
      return undefined
    }
  }
  const message = read('message')
  if (message === 'out of memory')
    return runtimeError(`The script needs more memory than its ${limits.megabytes} MB.`)
  const name = read('name') ?? 'Error'
  const place = /grader\.js:(\d+)/.exec(read('stack') ?? '')?.[1]
  return runtimeError(
    `${name}: ${message ?? 'something was thrown that is no error'}${place ? ` (line ${place})` : ''}`,
  )
}

const found = (type: string, score: number) =>
  type === 'number' ? String(score) : `something of type ${type}`

const runtimeError = (message: string) => new GradeError('python_grader_runtime_error', message)
