// What is wrong with a job's files, in the words clients know: inspection in, the job's error out. Pure.

import type { RowError } from '../../engine/datasets/example.ts'
import type { PreflightReport } from '../../engine/train/preflight-report.ts'
import type { FileReport, Inspection } from '../../engine/train/request.ts'

/** A failed job's `error`. */
export interface JobError {
  code: string
  message: string
  param: string | null
}

/** Why a job fails: its error, and every bad row for the event's `data.errors`. */
export interface JobFailure {
  error: JobError
  errors: Array<RowError & { param: string }>
}

export type FileParam = 'training_file' | 'validation_file'

/** Fewer rows than this teach nothing that would hold. */
export const MIN_EXAMPLES = 10

/** What of a job its errors name. */
export interface FilesOfJob {
  readonly training_file: string
  readonly validation_file: string | null
  readonly method: { readonly type: string }
}

/** The failure that an inspection amounts to, or undefined where both files are fit for training. */
export function fileFailure(
  { training, validation }: Inspection,
  job: FilesOfJob,
): JobFailure | undefined {
  const errors = [
    ...rows('training_file', training),
    ...(validation ? rows('validation_file', validation) : []),
  ]
  if (training.error_count > 0)
    return { error: invalidFile('training_file', training, job), errors }
  if (training.examples < MIN_EXAMPLES)
    return {
      error: {
        code: 'invalid_n_examples',
        message: `Training file has ${training.examples} example(s), but must have at least ${MIN_EXAMPLES} examples`,
        param: 'training_file',
      },
      errors,
    }
  if (validation && validation.error_count > 0)
    return { error: invalidFile('validation_file', validation, job), errors }
  if (validation?.examples === 0)
    return { error: fileError('validation_file', 'The file has no examples.'), errors }
  return undefined
}

/** The failure that a preflight's findings amount to: `strict` made them errors, or they always are. */
export function preflightFailure({ findings, errors }: PreflightReport): JobFailure | undefined {
  const [first, ...others] = findings.filter(({ level }) => level === 'error')
  if (!first) return undefined
  const message = [first, ...others].map((finding) => finding.message).join(' ')
  return {
    error: {
      code: first.name.startsWith('invalid_') ? first.name : `preflight_${first.name}`,
      message: `The job failed in its preflight. ${message}`,
      param: first.param,
    },
    errors,
  }
}

/** A file that is no JSONL at all, or is gone: nothing in it could be looked at. */
export const unreadableFile = (param: FileParam, reason: string): JobFailure => ({
  error: fileError(param, reason),
  errors: [],
})

const rows = (param: FileParam, report: FileReport) =>
  report.errors.map((error) => ({ param, ...error }))

function invalidFile(param: FileParam, report: FileReport, job: FilesOfJob): JobError {
  const first = report.errors[0]
  if (first?.check === 'format_of_another_method')
    return fileError(
      param,
      `Invalid file format. Input file ${job[param]} ${first.message} (provided method=${job.method.type}).`,
    )
  if (report.format === undefined && (!first || first.check === 'unexpected_format'))
    return fileError(
      param,
      first?.message.replace(/^has an /, '') ??
        'unexpected file format, expected either prompt/completion pairs or chat messages.',
    )
  if (!first) return fileError(param, `${report.error_count} of its lines are not valid.`)
  return fileError(param, `Invalid file format. ${place(first)} ${first.message}`)
}

const fileError = (param: FileParam, reason: string): JobError => ({
  code: `invalid_${param}`,
  message: `The job failed due to an invalid ${param.replace('_', ' ')}. ${reason}`,
  param,
})

// "Example 100, message 2" counts both from 1, the pointer's index from 0.
function place({ line, pointer }: RowError): string {
  const index = /^(?:\/input)?\/messages\/(\d+)/.exec(pointer)?.[1]
  return index === undefined ? `Example ${line}` : `Example ${line}, message ${Number(index) + 1}`
}
