// What a preflight can find: the names by which a job may make a finding an error. Data alone.

/** What `strict` may name, and what each means. */
export const findings = {
  duplicates: 'Rows of the training file that are the same to the letter.',
  near_duplicates: 'Rows of the training file that differ in a few words at most.',
  leakage: 'Rows of the validation file whose input is one of the training file.',
  near_leakage: 'Rows of the validation file whose input is nearly one of the training file.',
  contradictions: 'Rows with the same input and different outputs.',
  truncated_rows: 'Rows that are longer than `max_sequence_length`.',
  imbalance: 'One output that takes most of the rows.',
  rare_labels: 'Labels with too few rows to learn from.',
  small_groups: 'Groups of `groups` with too few rows to learn from.',
  missing_groups: 'Rows without a field of `groups`.',
  unrepresentative: 'Training rows that a classifier tells from those of `reference_file`.',
  overfit_risk: 'Training that is likely to learn its rows by heart.',
} as const

export type FindingName = keyof typeof findings

export const FINDING_NAMES = Object.keys(findings) as FindingName[]
