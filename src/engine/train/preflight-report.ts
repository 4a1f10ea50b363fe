// What a preflight says: the findings with their levels, as data and as text to be read. Pure.

import type { Curation } from '../curate/curate-files.ts'
import type { FindingName } from '../curate/findings.ts'
import type { RowDetails } from '../datasets/row-details.ts'
import type { FileReport, Inspection, InspectRequest } from './request.ts'

export interface Finding {
  name: FindingName | 'invalid_rows' | 'invalid_reference_file'
  /** An error fails the job; `strict` makes one of a warning. */
  level: 'info' | 'warn' | 'error'
  message: string
  /** The field of a job's body that it is about. */
  param: string
}

export type FileSummary = Omit<FileReport, 'details' | 'errors'> & Partial<RowDetails>

export interface OverfitRisk {
  level: 'low' | 'medium' | 'high'
  rows: number
  trained_tokens: number
  trainable_parameters: number | null
  epochs: number
  reasons: string[]
}

export interface PreflightReport {
  object: 'fine_tuning.preflight'
  /** Nothing that was found would fail the job. */
  ok: boolean
  findings: Finding[]
  errors: (FileReport['errors'][number] & { param: string })[]
  training: FileSummary
  validation: FileSummary | null
  /** Rows of the training file that `validation_split` holds back, and their lines. */
  held_back: { rows: number; lines: number[] } | null
  compared_rows: number
  duplicates: Curation['duplicates']
  near_duplicates: Curation['near_duplicates']
  contradictions: Curation['contradictions']
  leakage: Curation['leakage']
  balance: Curation['balance']
  groups: Curation['groups']
  representativeness: Curation['representativeness']
  overfit_risk: OverfitRisk | null
  forecast: {
    steps: number
    epochs: number
    batch_size: number
    memory_bytes: number | null
    step_seconds: number | null
    seconds: number | null
  } | null
  /** All of it to be read. */
  text: string
}

/** Shares from which a finding is a warning and no mere remark. */
const MUCH = 0.01
const IMBALANCED = 0.8
const HELD_SHOWN = 1000

export function preflightReport(
  request: InspectRequest,
  inspection: Inspection,
  curation: Curation,
): PreflightReport {
  const { training, validation, plan, held_back } = inspection
  const errors = [
    ...training.errors.map((error) => ({ param: 'training_file', ...error })),
    ...(validation && !held_back ? validation.errors : []).map((error) => ({
      param: 'validation_file',
      ...error,
    })),
    ...curation.reference_errors.map((error) => ({
      param: 'luthier.data.reference_file',
      ...error,
    })),
  ]
  const overfit_risk = riskOf(request, inspection, curation)
  const found = findingsOf(inspection, curation, overfit_risk)
  const strict = request.curation?.strict ?? false
  const findings = found.map((finding): Finding => {
    const named =
      typeof strict === 'boolean' ? strict : strict.some((name) => name === finding.name)
    return named && finding.level === 'warn' ? { ...finding, level: 'error' } : finding
  })
  const lines = curation.held_back
  const report = {
    object: 'fine_tuning.preflight' as const,
    ok: findings.every(({ level }) => level !== 'error'),
    findings,
    errors,
    training: summaryOf(training),
    validation: validation ? summaryOf(validation) : null,
    held_back: lines && { rows: lines.length, lines: lines.slice(0, HELD_SHOWN) },
    compared_rows: curation.compared,
    duplicates: curation.duplicates,
    near_duplicates: curation.near_duplicates,
    contradictions: curation.contradictions,
    leakage: curation.leakage,
    balance: curation.balance,
    groups: curation.groups,
    representativeness: curation.representativeness,
    overfit_risk,
    forecast: plan
      ? {
          steps: plan.total_steps,
          epochs: plan.n_epochs,
          batch_size: plan.batch_size,
          memory_bytes: inspection.forecast?.memory_bytes ?? null,
          step_seconds: inspection.forecast?.step_seconds ?? null,
          seconds: inspection.forecast?.seconds ?? null,
        }
      : null,
  }
  return { ...report, text: textOf(report) }
}

const summaryOf = ({ details, errors: _, ...rest }: FileReport): FileSummary => ({
  ...rest,
  ...details,
})

function findingsOf(
  { training, validation, held_back }: Inspection,
  curation: Curation,
  risk: OverfitRisk | null,
): Finding[] {
  const findings: Finding[] = []
  const add = (
    name: Finding['name'],
    level: Finding['level'],
    message: string,
    param = 'training_file',
  ) => findings.push({ name, level, message, param })
  const files = [
    ['training_file', training],
    ...(validation && !held_back ? [['validation_file', validation] as const] : []),
  ] as const
  for (const [param, file] of files) {
    if (file.error_count > 0)
      add('invalid_rows', 'error', `${file.error_count} mistake(s) in rows of the ${param}.`, param)
    if (file.truncated + file.dropped > 0)
      add(
        'truncated_rows',
        'warn',
        `${file.truncated} row(s) of the ${param} are cut and ${file.dropped} left out: they are longer than max_sequence_length.`,
        param,
      )
  }
  const { duplicates, near_duplicates: near, contradictions, leakage, balance } = curation
  const share = (rows: number) => rows / Math.max(1, curation.compared)
  const weight = (rows: number) => (share(rows) >= MUCH ? 'warn' : 'info')
  if (duplicates.rows > 0)
    add(
      'duplicates',
      'warn',
      `${duplicates.rows} row(s) are the same to the letter as earlier ones${at(duplicates)}.`,
    )
  if (near.clusters > 0)
    add(
      'near_duplicates',
      'warn',
      `${near.rows} row(s) ask nearly the same as others, in ${near.clusters} cluster(s)${at(near)}.`,
    )
  if (contradictions.clusters > 0)
    add(
      'contradictions',
      'warn',
      `${contradictions.clusters} input(s) are answered in different ways${at(contradictions)}.`,
    )
  for (const [name, kind, says] of [
    ['leakage', leakage?.exact, 'ask to the letter'],
    ['near_leakage', leakage?.near, 'ask nearly'],
  ] as const)
    if (kind && kind.rows > 0)
      add(
        name,
        'warn',
        `${kind.rows} row(s) of the validation file ${says} what rows of the training file ask (line ${kind.first[0]!.line}: training line ${kind.first[0]!.training_line}).`,
        'validation_file',
      )
  const top = balance.most[0]
  if (balance.kind === 'labels' && top && top.share >= IMBALANCED && balance.distinct > 1)
    add(
      'imbalance',
      'warn',
      `${Math.round(top.share * 100)} % of the rows have the output ${JSON.stringify(top.output)}.`,
    )
  if (balance.rare.length > 0)
    add(
      'rare_labels',
      weight(balance.rare.reduce((sum, { rows }) => sum + rows, 0)),
      `${balance.rare.length} label(s) have fewer than ${balance.few} rows, among them ${JSON.stringify(balance.rare.at(-1)!.output)}.`,
    )
  for (const [i, group] of curation.groups.entries()) {
    const param = `luthier.data.groups[${i}]`
    if (group.missing > 0)
      add(
        'missing_groups',
        'error',
        `${group.missing} row(s) have no '${group.field}', neither as a field with a plain value nor in their metadata (line ${group.missing_lines[0]}).`,
        param,
      )
    if (group.too_small > 0)
      add(
        'small_groups',
        'warn',
        `${group.too_small} value(s) of '${group.field}' have fewer than ${group.few} rows.`,
        param,
      )
  }
  const reference = 'luthier.data.reference_file'
  const wrong = curation.reference_errors[0]
  if (wrong)
    add(
      'invalid_reference_file',
      'error',
      `Line ${wrong.line} of the reference file ${wrong.message}.`,
      reference,
    )
  const represents = curation.representativeness
  if (represents?.interval && represents.interval[0] > 0.5)
    add(
      'unrepresentative',
      'warn',
      `Training rows can be told from reference rows: AUC ${represents.auc} (${represents.interval.join('–')}), 0.5 is what one wants.`,
      reference,
    )
  if (risk && risk.level !== 'low')
    add(
      'overfit_risk',
      risk.level === 'high' ? 'warn' : 'info',
      `The risk of overfitting is ${risk.level}: ${risk.reasons.join('; ')}.`,
    )
  return findings
}

const at = ({ largest }: Curation['duplicates']) =>
  largest[0] ? ` (lines ${largest[0].lines.slice(0, 5).join(', ')})` : ''

function riskOf(
  request: InspectRequest,
  { training, plan, parameters, validation }: Inspection,
  curation: Curation,
): OverfitRisk | null {
  if (!plan) return null
  const reasons: string[] = []
  let points = 0
  const count = (n: number, reason: string) => {
    points += n
    reasons.push(reason)
  }
  const { examples: rows, trained_tokens } = training
  if (rows < 100) count(2, `only ${rows} rows`)
  else if (rows < 500) count(1, `${rows} rows`)
  if (plan.n_epochs >= 10) count(2, `every row is seen ${plan.n_epochs} times`)
  else if (plan.n_epochs >= 5) count(1, `every row is seen ${plan.n_epochs} times`)
  if (parameters !== undefined && trained_tokens * 100 < parameters)
    count(
      1,
      `${trained_tokens} tokens are learned by ${parameters} parameters, less than one for a hundred`,
    )
  const repeated = curation.near_duplicates.rows + curation.duplicates.rows
  if (repeated * 5 > rows) count(1, `${repeated} rows repeat others`)
  if (!validation) count(1, 'no validation rows would show it')
  else if (request.hyperparameters.early_stopping && points > 0)
    count(-1, 'early stopping is asked for')
  return {
    level: points >= 4 ? 'high' : points >= 2 ? 'medium' : 'low',
    rows,
    trained_tokens,
    trainable_parameters: parameters ?? null,
    epochs: plan.n_epochs,
    reasons,
  }
}

function textOf(report: Omit<PreflightReport, 'text'>): string {
  const { training, validation, held_back, forecast, representativeness: represents } = report
  const lines = [
    report.ok
      ? 'Preflight: nothing would stop the job.'
      : 'Preflight: the job would fail as it stands.',
    `Training: ${training.examples} rows, ${training.tokens} tokens, ${training.trained_tokens} of them learned${spread(training)}.`,
  ]
  if (validation)
    lines.push(
      `Validation${held_back ? ' (held back from the training file)' : ''}: ${validation.examples} rows, ${validation.tokens} tokens.`,
    )
  const { balance } = report
  lines.push(
    balance.kind === 'labels'
      ? `Outputs: ${balance.distinct} labels, the most frequent ${JSON.stringify(balance.most[0]?.output ?? '')} in ${percent(balance.most[0]?.share ?? 0)} of the rows.`
      : `Outputs: ${balance.distinct} different texts, half of them up to ${balance.characters.p50} characters.`,
  )
  for (const { field, values, groups } of report.groups)
    lines.push(
      `Groups by ${field}: ${values}; ${groups
        .slice(0, 5)
        .map(({ value, rows }) => `${value} ${rows}`)
        .join(', ')}.`,
    )
  if (represents)
    lines.push(
      represents.auc === null
        ? 'Reference: too few rows to compare.'
        : `Reference: AUC ${represents.auc} (95 %: ${represents.interval!.join('–')}); features: ${represents.features}; ${represents.unlike.length} listed reference rows are like none of training's.`,
    )
  if (forecast)
    lines.push(
      `Forecast: ${forecast.steps} steps over ${forecast.epochs} epoch(s)${forecast.memory_bytes === null ? '' : `, about ${(forecast.memory_bytes / 1e9).toFixed(1)} GB`}${forecast.seconds === null ? '' : `, about ${spoken(forecast.seconds)}`}.`,
    )
  if (report.overfit_risk) lines.push(`Risk of overfitting: ${report.overfit_risk.level}.`)
  for (const { level, name, message } of report.findings)
    lines.push(`${{ info: 'note', warn: 'WARNING', error: 'ERROR' }[level]} ${name}: ${message}`)
  for (const { param, line, pointer, message } of report.errors.slice(0, 20))
    lines.push(`${param}, line ${line}${pointer && ` (${pointer})`}: ${message}`)
  return lines.join('\n')
}

const spoken = (seconds: number) =>
  seconds < 90
    ? `${Math.ceil(seconds)} s`
    : seconds < 5400
      ? `${Math.round(seconds / 60)} min`
      : `${(seconds / 3600).toFixed(1)} h`

const percent = (share: number) => `${Math.round(share * 100)} %`

const spread = ({ row_tokens: t }: FileSummary) =>
  t
    ? `; a row has ${t.min} to ${t.max} tokens, half of them up to ${t.p50}, 95 % up to ${t.p95}`
    : ''
