// LoRA dropout in a training graph: where it drops, and the random numbers of one run, drawn from a counter.

import { input, size, staticDims, type Value } from '../graph/graph.ts'
import { dropout } from '../graph/ops/dropout.ts'
import { randomWords } from '../random.ts'
import { type HostTensor, int32 } from '../tensor.ts'

/** Projections that read one input have one mask, also where it is computed once more for the gradient. */
interface Site {
  readonly rows: Value
  readonly columns: Value
}

/** Which micro-batch of which update of which job: the same three drop the same elements. */
export interface DropoutRun {
  readonly seed: number
  readonly step: number
  readonly microBatch: number
}

export interface Dropout {
  drop(x: Value, site: string): Value
  /** What the graph is fed besides its data. */
  feeds(run: DropoutRun): Record<string, HostTensor>
}

/** Dropout for one graph; `feeds` knows the sites once the graph is built. */
export function createDropout(rate: number): Dropout {
  const sites = new Map<string, Site>()
  const siteOf = (x: Value, name: string): Site => {
    const [rows, columns] = staticDims(x.dims) as [number, number]
    const site = sites.get(name) ?? {
      rows: input(`${name}.dropout_rows`, 'int32', [rows, 1]),
      columns: input(`${name}.dropout_columns`, 'int32', [1, columns]),
    }
    sites.set(name, site)
    return site
  }
  return {
    drop(x, name) {
      const { rows, columns } = siteOf(x, name)
      return dropout(x, rows, columns, rate)
    },
    feeds({ seed, step, microBatch }) {
      const feeds: Record<string, HostTensor> = {}
      for (const [i, [name, site]] of [...sites].entries()) {
        const [rows, columns] = [size(site.rows.dims), size(site.columns.dims)]
        const odd = randomWords(rows + columns, seed, [i, step, microBatch]).map((word) => word | 1)
        feeds[`${name}.dropout_rows`] = int32([rows, 1], odd.subarray(0, rows))
        feeds[`${name}.dropout_columns`] = int32([1, columns], odd.subarray(rows))
      }
      return feeds
    },
  }
}
