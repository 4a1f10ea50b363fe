// Who is in the next step: groups by base model, one piece of one prompt or some short prompts together, then up to `width`
// sequences at once.
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
  /** Whose prompts are read, until `begin` says that they are: one piece by piece, or several at once. */
  reading: S[]
  active: S[]
  /** A piece of a prompt was read last: those that decode go first now. */
  admitted: boolean
}

/** What to compute next: the next piece of one prompt or some whole ones, or one token more for several sequences of one base. */
export type Step<S> =
  | { type: 'prefill'; target: string; sequences: S[]; alone: boolean }
  | { type: 'decode'; target: string; sequences: S[] }

/** A batcher without work. */
export const createBatcher = <S>({ width = 16 } = {}): Batcher<S> => ({ width, groups: [] })

/** Sequences whose prompt is read or that are decoded, and those that wait. */
export function occupancy<S>({ groups }: Batcher<S>): { running: number; waiting: number } {
  let [running, waiting] = [0, 0]
  for (const group of groups) {
    running += group.active.length + group.reading.length
    for (const { sequences } of [...group.waiting, ...group.waitingLow]) waiting += sequences.length
  }
  return { running, waiting }
}

/** Whether a prompt of ordinary priority waits or is being read. */
export const isAnyoneUnread = <S>({ groups }: Batcher<S>): boolean =>
  groups.some(
    ({ waiting, reading, low }) => waiting.length > 0 || reading.some((one) => !low.has(one)),
  )

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
  reading: [],
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
    else if (group.reading.includes(sequence)) group.reading = others(group.reading)
    else continue
    group.low.delete(sequence)
    for (const list of ['waiting', 'waitingLow'] as const)
      group[list] = group[list].filter(({ sequences }) => sequences.length > 0)
    const { waiting, waitingLow, active, reading } = group
    if (waiting.length + waitingLow.length + active.length + reading.length === 0)
      batcher.groups.splice(i, 1)
    return true
  }
  return false
}

/**
 * The next step, or none. Base models take turns; within one, pieces of prompts and decoding take turns, and so do
 * owners, so that neither a long prompt nor a long answer nor many choices hold up the others. Who is of low priority
 * is read while nobody else waits. `fits` says whether a prompt that waits may be read together with these.
 */
export function nextStep<S>(
  batcher: Batcher<S>,
  fits: (together: readonly S[], next: S) => boolean = () => false,
): Step<S> | undefined {
  const group = batcher.groups.shift()
  if (!group) return undefined
  batcher.groups.push(group)
  const { target, active } = group
  const admit = active.length < batcher.width && !(group.admitted && active.length > 0)
  if (admit) readNext(group, batcher.width, fits)
  group.admitted = admit && group.reading.length > 0
  if (!group.admitted) return { type: 'decode', target, sequences: [...active] }
  return { type: 'prefill', target, sequences: [...group.reading], alone: active.length === 0 }
}

/** The prompt was read to its end: the sequence is decoded from now on. */
export function begin<S>(batcher: Batcher<S>, sequence: S): void {
  const group = batcher.groups.find(({ reading }) => reading.includes(sequence))
  if (!group) throw new Error('A sequence begins that was not being read.')
  group.reading = group.reading.filter((other) => other !== sequence)
  group.active.push(sequence)
}

/** Who is being read goes on; else the next one is, and of those behind it who fits beside it. */
function readNext<S>(
  group: Group<S>,
  width: number,
  fits: (together: readonly S[], next: S) => boolean,
): void {
  const { waiting, waitingLow, low, reading, active } = group
  const [first] = reading
  if (first !== undefined && (!low.has(first) || waiting.length === 0)) return
  for (const sequence of reading.toReversed())
    waitingLow.unshift({ owner: sequence, sequences: [sequence] })
  const lows = active.filter((sequence) => low.has(sequence)).length
  const [queues, room] =
    waiting.length > 0
      ? [waiting, width - active.length]
      : [waitingLow, Math.min(width - active.length, Math.max(1, width >> 1) - lows)]
  group.reading = []
  if (room <= 0 || queues.length === 0) return
  group.reading.push(take(queues)!)
  // One of each owner, so that many choices of one request take no more turns than others.
  for (const queue of [...queues]) {
    if (group.reading.length === room) return
    const next = queue.sequences[0]!
    if (!fits(group.reading, next)) continue
    queues.splice(queues.indexOf(queue), 1)
    queue.sequences.shift()
    if (queue.sequences.length > 0) queues.push(queue)
    group.reading.push(next)
  }
}

function take<S>(waiting: Queue<S>[]): S | undefined {
  const queue = waiting.shift()
  const sequence = queue?.sequences.shift()
  if (queue && queue.sequences.length > 0) waiting.push(queue)
  return sequence
}
