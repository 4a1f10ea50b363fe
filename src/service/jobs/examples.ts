// The training rows of a job as it learned from them: which deserve a look, and a new file without some of them.

import { invalidRequest } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { findFile } from '../db/files.ts'
import type { FineTuningJob } from '../db/fine-tuning-jobs.ts'
import { listRowLosses } from '../db/fine-tuning-row-losses.ts'
import type { FileRecord, Files } from '../files/files.ts'
import type { Stores } from '../storage/objects.ts'
import { pickLines, withoutLines } from './file-lines.ts'
import type { Jobs } from './jobs.ts'
import { type ExampleOrder, Ledger, type RankedExample } from './ledger.ts'

export interface Example extends RankedExample {
  /** `line-12`. */
  id: string
  /** What stands in that line; null once the file is deleted. */
  row: unknown
}

export interface ExampleQuery {
  order: ExampleOrder
  after?: string | undefined
  limit: number
}

/** Which rows a new file is to lack. */
export interface Removal {
  lines?: readonly number[] | undefined
  /** The first so many of an order. */
  top?: { order: ExampleOrder; count: number } | undefined
  filename?: string | undefined
}

export interface Examples {
  /** `limit + 1` rows where there are more. */
  list(project_id: string, job_id: string, query: ExampleQuery): Promise<Example[]>
  /** A file of the job's other rows, which names its parent. */
  derive(project_id: string, job_id: string, removal: Removal): Promise<FileRecord>
}

export interface ExamplesDeps {
  stores: Stores
  jobs: Pick<Jobs, 'retrieve'>
  files: Pick<Files, 'receive' | 'create' | 'content'>
  log: Pick<Logger, 'info'>
}

/** The examples of all jobs. */
export function createExamples({ stores: { db }, jobs, files, log }: ExamplesDeps): Examples {
  const ledgerOf = async (job: FineTuningJob) => new Ledger(await listRowLosses(db, job.id))

  /** The training file, if it is still there and says what it said to the job. */
  const fileOf = async ({ project_id, training_file, training_sha256 }: FineTuningJob) => {
    const file = await findFile(db, project_id, training_file)
    return file?.sha256 === training_sha256 ? file : undefined
  }

  return {
    async list(project_id, job_id, { order, after, limit }) {
      const job = await jobs.retrieve(project_id, job_id)
      const ledger = await ledgerOf(job)
      const line = after === undefined ? undefined : lineOf(after)
      if (after !== undefined && (line === undefined || !ledger.has(line)))
        throw invalidRequest(`Invalid 'after': no object with id '${after}' in this list.`, {
          param: 'after',
          code: 'invalid_value',
        })
      const count = limit + 1
      const found = ledger.ranked(order, { count, ...(line !== undefined && { after: line }) })
      const file = found.length === 0 ? undefined : await fileOf(job)
      const lines = new Set(found.map(({ line }) => line))
      const texts = file && (await pickLines(await files.content(file), lines))
      return found.map((row) => ({
        id: `line-${row.line}`,
        ...row,
        row: parsed(texts?.get(row.line)),
      }))
    },

    async derive(project_id, job_id, { lines, top, filename }) {
      const job = await jobs.retrieve(project_id, job_id)
      const file = await fileOf(job)
      if (!file)
        throw invalidRequest(
          `The training file \`${job.training_file}\` of the job was deleted: there is nothing to derive from.`,
          { param: 'fine_tuning_job_id', code: 'training_file_deleted' },
        )
      if ((lines === undefined) === (top === undefined))
        throw invalidRequest("Send either 'lines' or 'top': which rows the new file is to lack.", {
          param: 'lines',
          code: 'invalid_value',
        })
      const ledger = await ledgerOf(job)
      const unknown = lines?.find((line) => !ledger.has(line))
      if (unknown !== undefined)
        throw invalidRequest(
          `Line ${unknown} is no row that the job has learned from, so it cannot be removed.`,
          { param: 'lines', code: 'invalid_value' },
        )
      const removed = new Set(
        lines ?? ledger.ranked(top!.order, { count: top!.count }).map(({ line }) => line),
      )
      const body = withoutLines(await files.content(file), removed)
      const upload = await files.receive(project_id, body)
      try {
        const made = await files.create(
          project_id,
          {
            filename: filename ?? file.filename.replace(/(\.jsonl)?$/i, '-derived.jsonl'),
            purpose: 'fine-tune',
            parent: { file_id: file.id, job_id, removed_rows: removed.size },
          },
          upload,
        )
        log.info({ job: job_id, file: made.id, removed: removed.size }, 'file derived')
        return made
      } finally {
        await upload.staged.discard()
      }
    },
  }
}

const lineOf = (id: string): number | undefined => {
  const digits = /^line-([1-9]\d{0,9})$/.exec(id)?.[1]
  return digits === undefined ? undefined : Number(digits)
}

/** The row; a line that is none any more is shown as it is. */
function parsed(text: string | undefined): unknown {
  if (text === undefined) return null
  try {
    return JSON.parse(text.replace(/^\uFEFF/, ''))
  } catch {
    return text
  }
}
