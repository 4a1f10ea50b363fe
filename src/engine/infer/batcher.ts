// Who is in the next step: groups by target, one prompt at a time, then up to `width` together.
// Pure bookkeeping: knows sequences by identity only; no tokens, no sessions.

export interface Batcher<S> {
  /** Sequences of one target that are decoded together at most. */
  readonly width: number
  /** Targets that have work, the one whose turn is next first. */
  readonly groups: Group<S>[]
}

interface Group<S> {
  readonly target: string
  waiting: S[]
  active: S[]
  /** A prompt was admitted last: those that decode go first now. */
  admitted: boolean
}

/** What to compute next: the prompt of one sequence, or one token more for several of one target. */
export type Step<S> =
  | { type: 'prefill'; target: string; sequence: S }
  | { type: 'decode'; target: string; sequences: S[] }

/** A batcher without work. */
export const createBatcher = <S>({ width = 8 } = {}): Batcher<S> => ({ width, groups: [] })

/** Queues a sequence behind the others of its target. */
export function add<S>(batcher: Batcher<S>, target: string, sequence: S): void {
  const group = batcher.groups.find((group) => group.target === target)
  if (group) group.waiting.push(sequence)
  else batcher.groups.push({ target, waiting: [sequence], active: [], admitted: false })
}

/** Takes a sequence out, finished or aborted; false when it was not there. */
export function remove<S>(batcher: Batcher<S>, sequence: S): boolean {
  for (const [i, group] of batcher.groups.entries()) {
    const before = group.waiting.length + group.active.length
    group.waiting = group.waiting.filter((other) => other !== sequence)
    group.active = group.active.filter((other) => other !== sequence)
    const after = group.waiting.length + group.active.length
    if (after === before) continue
    if (after === 0) batcher.groups.splice(i, 1)
    return true
  }
  return false
}

/**
 * The next step, or none. Targets take turns; within a target prompts and decoding take turns, so that
 * neither a long queue nor a long answer holds up the other. A sequence in a `prefill` is active from then on.
 */
export function nextStep<S>(batcher: Batcher<S>): Step<S> | undefined {
  const group = batcher.groups.shift()
  if (!group) return undefined
  batcher.groups.push(group)
  const { target, waiting, active } = group
  const admit = active.length < batcher.width && !(group.admitted && active.length > 0)
  const sequence = admit ? waiting.shift() : undefined
  group.admitted = sequence !== undefined
  if (sequence === undefined) return { type: 'decode', target, sequences: [...active] }
  active.push(sequence)
  return { type: 'prefill', target, sequence }
}
