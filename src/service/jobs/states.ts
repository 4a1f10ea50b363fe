// The states of a fine-tuning job and what moves it between them. Pure.

export type JobStatus =
  | 'validating_files'
  | 'queued'
  | 'running'
  | 'paused'
  | 'succeeded'
  | 'failed'
  | 'cancelled'

export type JobChange =
  | 'files_validated'
  | 'started'
  | 'requeued'
  | 'paused'
  | 'resumed'
  | 'succeeded'
  | 'failed'
  | 'cancelled'

const transitions: Record<JobChange, { from: readonly JobStatus[]; to: JobStatus }> = {
  files_validated: { from: ['validating_files'], to: 'queued' },
  started: { from: ['queued'], to: 'running' },
  // A worker stopped in the middle: another, or the same one later, goes on from the last state.
  requeued: { from: ['running'], to: 'queued' },
  paused: { from: ['running'], to: 'paused' },
  resumed: { from: ['paused'], to: 'queued' },
  succeeded: { from: ['running'], to: 'succeeded' },
  failed: { from: ['validating_files', 'queued', 'running'], to: 'failed' },
  cancelled: { from: ['validating_files', 'queued', 'running', 'paused'], to: 'cancelled' },
}

/** Where a change leads, or undefined where it is not allowed. */
export const nextStatus = (status: JobStatus, change: JobChange): JobStatus | undefined =>
  transitions[change].from.includes(status) ? transitions[change].to : undefined

/** The states from which a change may start: what a guarded update asks for. */
export const statesBefore = (change: JobChange): readonly JobStatus[] => transitions[change].from

/** Where a change leads. */
export const statusAfter = (change: JobChange): JobStatus => transitions[change].to

/** Nothing leads out of these. */
export const isTerminal = (status: JobStatus): boolean =>
  status === 'succeeded' || status === 'failed' || status === 'cancelled'
