// Several runs at once, their results one after the other.

/** Runs each item and gives it with its outputs, in order, while at most `width` are under way. */
export async function* inOrder<T, O>(
  items: Iterable<T>,
  run: (item: T) => Promise<O>,
  width: number,
): AsyncGenerator<[T, O], void, undefined> {
  const underWay: [T, Promise<O>][] = []
  for (const item of items) {
    const outputs = run(item)
    // A failure is met when its turn comes; until then it must not count as unhandled.
    outputs.catch(() => {})
    underWay.push([item, outputs])
    if (underWay.length < width) continue
    const [oldest, done] = underWay.shift()!
    yield [oldest, await done]
  }
  for (const [item, outputs] of underWay) yield [item, await outputs]
}
