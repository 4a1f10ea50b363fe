// How the outputs of a file, and of groups of its rows, are distributed. Counts only.

import { hashText } from './words.ts'

/** How often one output occurs. */
export interface Count {
  output: string
  rows: number
  share: number
}

export interface Balance {
  /** `labels`: few outputs that come again and again; `texts`: hardly one comes twice. */
  kind: 'labels' | 'texts'
  /** How many different ones there are; of many more than 20,000 only that. */
  distinct: number
  /** The most frequent ones, at most 100, longer ones cut. */
  most: Count[]
  /** Labels with fewer rows than `few`. */
  rare: Count[]
  /** Rows that a label needs to be learned, as a rule of thumb. */
  few: number
  /** Characters of the outputs. */
  characters: { p50: number; p90: number; max: number }
}

export interface Group {
  value: string
  rows: number
  share: number
  /** Share of each output in the group, where the file's outputs are labels. */
  output_rates?: Record<string, number>
  too_small: boolean
}

export interface GroupField {
  field: string
  /** How many values there are; `groups` has at most 50, the largest first. */
  values: number
  groups: Group[]
  /** Values with fewer rows than `few`. */
  too_small: number
  few: number
  /** Rows without the field. */
  missing: number
  /** The first lines without it. */
  missing_lines: number[]
}

const MOST_OUTPUTS = 20_000
const SHOWN = 100
const CUT = 120
/** Rows of a label, or of a group, below which hardly anything is learned of it. */
export const FEW_ROWS = 8
export const FEW_IN_GROUP = 20

/** Counts of texts, exact until there are too many different ones to be labels. */
export class OutputCounts {
  readonly #counts = new Map<number, { output: string; rows: number }>()
  readonly #lengths: number[] = []
  #rows = 0
  #beyond = 0

  add(outputs: readonly string[], length: number): void {
    this.#rows++
    this.#lengths.push(length)
    for (const output of outputs) {
      const key = hashText(output)
      const known = this.#counts.get(key)
      if (known) known.rows++
      else if (this.#counts.size < MOST_OUTPUTS)
        this.#counts.set(key, {
          output: output.length > CUT ? `${output.slice(0, CUT)}…` : output,
          rows: 1,
        })
      else this.#beyond++
    }
  }

  /** `labelled`: the rows say that they have labels. */
  balance(labelled: boolean): Balance {
    const all = [...this.#counts.values()].sort(
      (a, b) => b.rows - a.rows || (a.output < b.output ? -1 : 1),
    )
    const lengths = Float64Array.from(this.#lengths).sort()
    const at = (q: number) => lengths[Math.min(lengths.length - 1, Math.floor(q * lengths.length))]
    const p90 = at(0.9) ?? 0
    const few = all.length * 5 <= this.#rows && p90 <= CUT && this.#beyond === 0
    const kind = labelled || (few && all.length > 1) ? 'labels' : 'texts'
    const shown = ({ output, rows }: { output: string; rows: number }): Count => ({
      output,
      rows,
      share: round(rows / this.#rows),
    })
    return {
      kind,
      distinct: all.length + this.#beyond,
      most: all.slice(0, kind === 'labels' ? SHOWN : 10).map(shown),
      rare:
        kind === 'labels'
          ? all
              .filter(({ rows }) => rows < FEW_ROWS)
              .slice(-SHOWN)
              .map(shown)
          : [],
      few: FEW_ROWS,
      characters: { p50: at(0.5) ?? 0, p90, max: lengths.at(-1) ?? 0 },
    }
  }
}

const MOST_VALUES = 10_000
const MOST_GROUP_OUTPUTS = 200

/** Counts by the value of one field. */
export class GroupCounts {
  readonly field: string
  readonly #groups = new Map<string, { rows: number; outputs: Map<string, number> }>()
  readonly #missing: number[] = []
  #without = 0
  #rows = 0
  #beyond = 0

  constructor(field: string) {
    this.field = field
  }

  add(line: number, row: Readonly<Record<string, unknown>>, outputs: readonly string[]): void {
    this.#rows++
    const value = fieldOf(row, this.field)
    if (value === undefined) {
      this.#without++
      if (this.#missing.length < SHOWN) this.#missing.push(line)
      return
    }
    let group = this.#groups.get(value)
    if (!group) {
      if (this.#groups.size >= MOST_VALUES) {
        this.#beyond++
        return
      }
      group = { rows: 0, outputs: new Map() }
      this.#groups.set(value, group)
    }
    group.rows++
    for (const output of outputs) {
      const count = group.outputs.get(output)
      if (count !== undefined || group.outputs.size < MOST_GROUP_OUTPUTS)
        if (output.length <= CUT) group.outputs.set(output, (count ?? 0) + 1)
    }
  }

  counted(kind: Balance['kind']): GroupField {
    const all = [...this.#groups].sort(([a, x], [b, y]) => y.rows - x.rows || (a < b ? -1 : 1))
    return {
      field: this.field,
      values: all.length + this.#beyond,
      groups: all.slice(0, 50).map(([value, { rows, outputs }]) => ({
        value,
        rows,
        share: round(rows / this.#rows),
        ...(kind === 'labels' && {
          output_rates: Object.fromEntries(
            [...outputs]
              .sort((a, b) => b[1] - a[1])
              .slice(0, 20)
              .map(([output, n]) => [output, round(n / rows)]),
          ),
        }),
        too_small: rows < FEW_IN_GROUP,
      })),
      too_small: all.filter(([, { rows }]) => rows < FEW_IN_GROUP).length,
      few: FEW_IN_GROUP,
      missing: this.#without,
      missing_lines: this.#missing,
    }
  }
}

/** The field of a row, or the key of its metadata, as text; undefined where it has none, or no plain value. */
function fieldOf(row: Readonly<Record<string, unknown>>, field: string): string | undefined {
  const { metadata } = row
  const inMetadata =
    typeof metadata === 'object' && metadata !== null
      ? (metadata as Record<string, unknown>)[field]
      : undefined
  const value = Object.hasOwn(row, field) ? row[field] : inMetadata
  if (typeof value === 'string') return value.length > CUT ? `${value.slice(0, CUT)}…` : value
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined
}

/** Four digits are enough for a share. */
export const round = (share: number): number => Math.round(share * 1e4) / 1e4
