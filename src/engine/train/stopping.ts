// Which epoch was best, and whether another is worth its time. Pure: validation losses of epochs in, a decision out.

export interface Patience {
  /** Epochs without a gain after which training ends. */
  readonly patience: number
  /** A smaller gain than this is none. */
  readonly min_delta: number
  /** What has to be gained; absent: a lower validation loss. */
  readonly metric?: 'eval_score'
}

/** The first epoch of lowest loss, counted from 0; undefined where no loss is a number. */
export function bestEpoch(losses: readonly number[]): number | undefined {
  let best: number | undefined
  for (const [i, loss] of losses.entries())
    if (Number.isFinite(loss) && (best === undefined || loss < losses[best]!)) best = i
  return best
}

/** Whether the last `patience` epochs have each failed to come below the best before them by more than `min_delta`. */
export function isExhausted(losses: readonly number[], { patience, min_delta }: Patience): boolean {
  let lowest = Number.POSITIVE_INFINITY
  let without = 0
  for (const loss of losses) {
    if (loss < lowest - min_delta) {
      lowest = loss
      without = 0
    } else without++
    if (without >= patience) return true
  }
  return false
}
