// Who is in the next step: groups by base model, one piece of one prompt at a time, then up to `width` sequences together.
// Pure bookkeeping: knows sequences by identity only; no tokens, no sessions.

export interface Batcher<S> {
  /** Sequences of one base model that are decoded together at most. */
  readonly width: number
  /** Base models that have work, the one whose turn is next first. */
  readonly groups: Group<S>[]
}

/** What one owner waits with; never empty. */
interface Queue<S> {
  readonly owner: unknown
  sequences: S[]
}

interface Group<S> {
  readonly target: string
  /** By owner, the one whose turn it is first. */
  waiting: Queue<S>[]
  /** The same for those of low priority: read while nobody else waits, and decoded in half of the width. */
  waitingLow: Queue<S>[]
  /** All sequences of low priority, wherever they are. */
  readonly low: Set<S>
  /** Whose prompt is read, piece by piece, until `begin` says that it is. */
  reading: S | undefined
  active: S[]
  /** A piece of a prompt was read last: those that decode go first now. */
  admitted: boolean
}

/** What to compute next: the next piece of one prompt, or one token more for several sequences of one base. */
export type Step<S> =
  | { type: 'prefill'; target: string; sequence: S; alone: boolean }
  | { type: 'decode'; target: string; sequences: S[] }

/** A batcher without work. */
export const createBatcher = <S>({ width = 16 } = {}): Batcher<S> => ({ width, groups: [] })

/** Sequences whose prompt is read or that are decoded, and those that wait. */
export function occupancy<S>({ groups }: Batcher<S>): { running: number; waiting: number } {
  let [running, waiting] = [0, 0]
  for (const group of groups) {
    running += group.active.length + (group.reading === undefined ? 0 : 1)
    for (const { sequences } of [...group.waiting, ...group.waitingLow]) waiting += sequences.length
  }
  return { running, waiting }
}

/** Queues a sequence behind the others of its owner, a request; owners take turns. */
export function add<S>(
  batcher: Batcher<S>,
  target: string,
  sequence: S,
  { owner, low = false }: { owner: unknown; low?: boolean },
): void {
  let group = batcher.groups.find((group) => group.target === target)
  if (!group) {
    group = newGroup(target)
    batcher.groups.push(group)
  }
  if (low) group.low.add(sequence)
  const queues = low ? group.waitingLow : group.waiting
  const queue = queues.find((queue) => queue.owner === owner)
  if (queue) queue.sequences.push(sequence)
  else queues.push({ owner, sequences: [sequence] })
}

const newGroup = <S>(target: string): Group<S> => ({
  target,
  waiting: [],
  waitingLow: [],
  low: new Set(),
  reading: undefined,
  active: [],
  admitted: false,
})

/** Takes a sequence out, finished or aborted; false when it was not there. */
export function remove<S>(batcher: Batcher<S>, sequence: S): boolean {
  const others = (list: S[]) => list.filter((other) => other !== sequence)
  for (const [i, group] of batcher.groups.entries()) {
    const queue = [...group.waiting, ...group.waitingLow].find(({ sequences }) =>
      sequences.includes(sequence),
    )
    if (queue) queue.sequences = others(queue.sequences)
    else if (group.active.includes(sequence)) group.active = others(group.active)
    else if (group.reading === sequence) group.reading = undefined
    else continue
    group.low.delete(sequence)
    for (const list of ['waiting', 'waitingLow'] as const)
      group[list] = group[list].filter(({ sequences }) => sequences.length > 0)
    const { waiting, waitingLow, active, reading } = group
    if (waiting.length + waitingLow.length + active.length === 0 && reading === undefined)
      batcher.groups.splice(i, 1)
    return true
  }
  return false
}

/**
 * The next step, or none. Base models take turns; within one, pieces of prompts and decoding take turns, and so do
 * owners, so that neither a long prompt nor a long answer nor many choices hold up the others. Who is of low priority
 * is read while nobody else waits.
 */
export function nextStep<S>(batcher: Batcher<S>): Step<S> | undefined {
  const group = batcher.groups.shift()
  if (!group) return undefined
  batcher.groups.push(group)
  const { target, active } = group
  const admit = active.length < batcher.width && !(group.admitted && active.length > 0)
  if (admit) group.reading = whoIsRead(group, batcher.width)
  group.admitted = admit && group.reading !== undefined
  if (!group.admitted) return { type: 'decode', target, sequences: [...active] }
  return { type: 'prefill', target, sequence: group.reading!, alone: active.length === 0 }
}

/** The prompt was read to its end: the sequence is decoded from now on. */
export function begin<S>(batcher: Batcher<S>, sequence: S): void {
  const group = batcher.groups.find(({ reading }) => reading === sequence)
  if (!group) throw new Error('A sequence begins that was not being read.')
  group.reading = undefined
  group.active.push(sequence)
}

function whoIsRead<S>(group: Group<S>, width: number): S | undefined {
  const { waiting, waitingLow, low, reading, active } = group
  if (reading !== undefined && (!low.has(reading) || waiting.length === 0)) return reading
  if (reading !== undefined) waitingLow.unshift({ owner: reading, sequences: [reading] })
  if (waiting.length > 0) return take(waiting)
  const lows = active.filter((sequence) => low.has(sequence)).length
  return lows < Math.max(1, width >> 1) ? take(waitingLow) : undefined
}

function take<S>(waiting: Queue<S>[]): S | undefined {
  const queue = waiting.shift()
  const sequence = queue?.sequences.shift()
  if (queue && queue.sequences.length > 0) waiting.push(queue)
  return sequence
}
