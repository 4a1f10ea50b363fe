// Folders for one test or one file of tests, gone afterwards.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, onTestFinished } from 'vitest'

/** A new empty folder; deleted when the running test ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'luthier-test-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A new empty folder for a whole file of tests; deleted when the last has ended. */
export function suiteFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'luthier-test-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
