// LoRA dropout in a training graph: where it drops, and the random numbers of one run, drawn from a counter.

import { input, staticDims, type Value } from '../graph/graph.ts'
import { dropout } from '../graph/ops/dropout.ts'
import { randomWords } from '../random.ts'
import { type HostTensor, int32 } from '../tensor.ts'

/** Projections that read one input have one mask. */
interface Site {
  readonly name: string
  readonly rows: number
  readonly columns: number
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
  const sites: Site[] = []
  return {
    drop(x, name) {
      const [rows, columns] = staticDims(x.dims) as [number, number]
      sites.push({ name, rows, columns })
      return dropout(
        x,
        input(`${name}.dropout_rows`, 'int32', [rows, 1]),
        input(`${name}.dropout_columns`, 'int32', [1, columns]),
        rate,
      )
    },
    feeds({ seed, step, microBatch }) {
      const feeds: Record<string, HostTensor> = {}
      for (const [i, { name, rows, columns }] of sites.entries()) {
        const words = randomWords(rows + columns, seed, [i, step, microBatch])
        const odd = words.map((word) => word | 1)
        feeds[`${name}.dropout_rows`] = int32([rows, 1], odd.subarray(0, rows))
        feeds[`${name}.dropout_columns`] = int32([1, columns], odd.subarray(rows))
      }
      return feeds
    },
  }
}
