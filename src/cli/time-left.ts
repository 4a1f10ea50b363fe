// How long the rest of a run takes, from how long its part so far took.

/**
 * Called with each step, answers milliseconds left, or undefined before there is a rate.
 * The rate is that of the last `window` steps: the first ones also pay for compiling the graph.
 */
export function timeLeft(window = 20, now: () => number = Date.now) {
  const seen: { step: number; at: number }[] = []
  return (step: number, total: number): number | undefined => {
    if (seen.at(-1)?.step !== step) seen.push({ step, at: now() })
    if (seen.length > window + 1) seen.shift()
    const [first, last] = [seen[0], seen.at(-1)]
    if (!first || !last || last.step <= first.step) return undefined
    return ((last.at - first.at) / (last.step - first.step)) * (total - step)
  }
}
