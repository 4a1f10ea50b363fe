// The grammar thread's entry: what a schema of a client does to the library, it does here, where it can be replaced.

import type { CompiledGrammar, GrammarCompiler, GrammarMatcher } from '@mlc-ai/web-xgrammar'
import { invalidRequest } from '../../errors.ts'
import { serve } from '../runtime/thread.ts'
import { placeOfThread } from '../runtime/thread-watch.ts'
import {
  COUNT,
  type GrammarEvent,
  type GrammarRequest,
  type GrammarSource,
  HEAD,
  REFUSED,
} from './request.ts'
import { loadXGrammar } from './xgrammar.ts'

/** Compiled grammars of one vocabulary beyond as many are forgotten, the longest unused first. */
const KEPT_GRAMMARS = 128

/** Vocabularies beyond as many are forgotten, with their grammars; those in use stay alive through their matchers. */
const KEPT_VOCABULARIES = 8

interface Vocabulary {
  readonly compiler: GrammarCompiler
  readonly grammars: Map<string, Promise<CompiledGrammar>>
}

interface Open {
  readonly matcher: GrammarMatcher
  readonly memory: Int32Array
}

const place = placeOfThread()
const library = loadXGrammar()
const vocabularies = new Map<string, Vocabulary>()
const matchers = new Map<number, Open>()

serve<GrammarRequest, GrammarEvent>(async function* (request) {
  switch (request.type) {
    case 'vocabulary': {
      const { tokens, key, eos_token_ids } = request
      const info = await library.TokenizerInfo.createTokenizerInfo(
        tokens,
        'byte_level',
        false,
        tokens.length,
        [...eos_token_ids],
      )
      const compiler = await library.GrammarCompiler.createGrammarCompiler(info, false)
      vocabularies.set(key, { compiler, grammars: new Map() })
      for (const old of vocabularies.keys())
        if (vocabularies.size > KEPT_VOCABULARIES) vocabularies.delete(old)
      yield { type: 'done' }
      return
    }
    case 'compile': {
      yield { type: 'begun', place }
      const vocabulary = vocabularies.get(request.key)
      if (vocabulary) await compiled(vocabulary, request.source)
      yield { type: 'known', known: vocabulary !== undefined }
      return
    }
    case 'open': {
      const vocabulary = vocabularies.get(request.key)
      if (!vocabulary) throw new Error(`The vocabulary ${request.key} was forgotten.`)
      const grammar = await compiled(vocabulary, request.source)
      const matcher = await library.GrammarMatcher.createGrammarMatcher(grammar)
      const open = { matcher, memory: new Int32Array(request.memory) }
      matchers.set(request.id, open)
      await tellMask(open)
      yield { type: 'done' }
      return
    }
    case 'accept': {
      const open = matchers.get(request.id)
      if (!open) return
      if (!open.matcher.acceptToken(request.token)) open.memory[REFUSED] = 1
      await tellMask(open)
      return
    }
    case 'close':
      matchers.get(request.id)?.matcher.dispose()
      matchers.delete(request.id)
      return
    default:
      request satisfies never
  }
})

async function tellMask({ matcher, memory }: Open): Promise<void> {
  if (!matcher.isTerminated()) memory.set(await matcher.getNextTokenBitmask(), HEAD)
  Atomics.add(memory, COUNT, 1)
  Atomics.notify(memory, COUNT)
}

function compiled(
  { compiler, grammars }: Vocabulary,
  source: GrammarSource,
): Promise<CompiledGrammar> {
  const key = `${source.type}\n${source.text}`
  const known = grammars.get(key)
  const compiling = known ?? compile(compiler, source)
  grammars.delete(key)
  grammars.set(key, compiling)
  if (!known) compiling.catch(() => grammars.delete(key))
  for (const old of grammars.keys()) if (grammars.size > KEPT_GRAMMARS) grammars.delete(old)
  return compiling
}

/** Without what the schema does not name: an answer that can end is worth more than one that is laid out. */
const onOneLine = (schema: string) =>
  library.Grammar.fromJSONSchema(schema, false, -1, [', ', ': '], true)

/** The same structural tag, its schemas as grammars: left to itself the library allows white space without end. */
async function tagged(part: unknown): Promise<unknown> {
  if (Array.isArray(part)) return Promise.all(part.map(tagged))
  if (typeof part !== 'object' || part === null) return part
  if ('type' in part && part.type === 'json_schema' && 'json_schema' in part) {
    const grammar = await onOneLine(JSON.stringify(part.json_schema))
    return { type: 'grammar', grammar: grammar.toString() }
  }
  const entries = Object.entries(part).map(async ([key, value]) => [key, await tagged(value)])
  return Object.fromEntries(await Promise.all(entries))
}

async function compile(compiler: GrammarCompiler, { type, text, param }: GrammarSource) {
  try {
    return type === 'json_schema'
      ? await compiler.compileGrammar(await onOneLine(text))
      : await compiler.compileStructuralTag(JSON.stringify(await tagged(JSON.parse(text))))
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw invalidRequest(`Invalid schema for '${param}': no grammar can be made of it. ${reason}`, {
      param,
      code: 'invalid_json_schema',
    })
  }
}
