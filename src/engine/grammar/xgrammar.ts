// The only file that loads XGrammar: CommonJS in a package that calls itself a module, so Node cannot import it.

import { readFileSync } from 'node:fs'
import { createRequire, Module } from 'node:module'
import { dirname, join } from 'node:path'
import type * as XGrammar from '@mlc-ai/web-xgrammar'

interface Compilable {
  filename: string
  exports: unknown
  _compile(code: string, filename: string): void
}

/** The library; each thread has its own. */
export function loadXGrammar(): typeof XGrammar {
  const root = createRequire(import.meta.url).resolve('@mlc-ai/web-xgrammar/package.json')
  const file = join(dirname(root), 'lib/index.js')
  const module = new Module(file) as unknown as Compilable
  module.filename = file
  module._compile(readFileSync(file, 'utf8'), file.replace(/\.js$/, '.cjs'))
  return module.exports as typeof XGrammar
}
