// The area under the ROC curve of scores, and how sure it is. Pure.

/** The area under the ROC curve and its variance (DeLong, DeLong and Clarke-Pearson, 1988). */
export function area(
  negative: readonly number[],
  positive: readonly number[],
): { auc: number; variance: number } {
  const below = (sorted: Float64Array, x: number) => {
    const count = (least: (value: number) => boolean) => {
      let [from, to] = [0, sorted.length]
      while (from < to) {
        const middle = (from + to) >> 1
        if (least(sorted[middle]!)) to = middle
        else from = middle + 1
      }
      return from
    }
    return (count((v) => v >= x) + count((v) => v > x)) / 2
  }
  const sortedNegative = Float64Array.from(negative).sort()
  const sortedPositive = Float64Array.from(positive).sort()
  const ofPositive = positive.map((x) => below(sortedNegative, x) / negative.length)
  const ofNegative = negative.map((x) => 1 - below(sortedPositive, x) / positive.length)
  const mean = (list: readonly number[]) => list.reduce((a, b) => a + b, 0) / list.length
  const spread = (list: readonly number[]) => {
    const m = mean(list)
    return list.reduce((sum, x) => sum + (x - m) ** 2, 0) / (list.length - 1) / list.length
  }
  return { auc: mean(ofPositive), variance: spread(ofPositive) + spread(ofNegative) }
}
