// A job's files judged before a step is taken: what inspection finds wrong with single rows, and what curation finds
// wrong with all of them together. Changes nothing.

import { setTimeout as sleep } from 'node:timers/promises'
import { curateFiles } from '../curate/curate-files.ts'
import { chooseEncoder } from '../curate/embed-texts.ts'
import { packLines } from '../curate/split.ts'
import { rowFormats } from '../datasets/rows.ts'
import type { TakeTurn } from '../runtime/thread.ts'
import { inspect } from './inspect.ts'
import { preflightReport } from './preflight-report.ts'
import type { Inspection, InspectRequest } from './request.ts'

/** How far it has come: what is being done, and with how many rows it has been. */
export interface PreflightProgress {
  type: 'progress'
  stage: string
  rows: number
}

export type PreflightEvent = PreflightProgress | Inspection

const TELL_MS = 5000

/** Curates and inspects; the last event is the inspection, with its report where `request.curation` asks for one. */
export async function* preflight(
  request: InspectRequest,
  turn?: TakeTurn,
): AsyncGenerator<PreflightEvent> {
  const { curation } = request
  if (!curation) {
    yield await inspect(request, turn)
    return
  }
  let latest: PreflightProgress | undefined
  // A new stage is told at once, how far it has come from time to time.
  const stages = new Set<string>()
  let due = false
  let wake = () => {}
  const tell = (stage: string, rows: number) => {
    latest = { type: 'progress', stage, rows }
    if (stages.has(stage)) return
    stages.add(stage)
    due = true
    wake()
  }
  const work = async () => {
    const formats = Object.values(rowFormats)
      .filter(({ method }) => method === request.method)
      .map(({ name }) => name)
    const { cache } = request
    const { reference, models = [] } = curation
    const encoder = reference && cache !== undefined ? await chooseEncoder(models) : undefined
    const curated = await curateFiles(
      {
        training: request.training.path,
        validation: request.validation?.path,
        reference: reference?.path,
        encoder: encoder && cache !== undefined ? { ...encoder, cache } : undefined,
        formats,
        groups: curation.groups ?? [],
        validation_split: curation.validation_split,
      },
      tell,
    )
    const held = curated.held_back
    const inspection = await inspect(
      {
        ...request,
        ...(held && held.length > 0 && { held_back: packLines(held) }),
        tell,
      },
      turn,
    )
    const report = preflightReport(request, inspection, curated)
    return { ...inspection, preflight: report }
  }
  const result = work()
  result.catch(() => {})
  while (true) {
    const end = new AbortController()
    wake = () => end.abort()
    const waited = sleep(TELL_MS, false, { signal: end.signal }).catch(() => false)
    const ended = due ? false : await Promise.race([result.then(() => true), waited])
    end.abort()
    due = false
    if (latest) yield latest
    latest = undefined
    if (ended) break
  }
  yield await result
}
