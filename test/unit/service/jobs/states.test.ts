import { expect, test } from 'vitest'
import {
  isTerminal,
  type JobChange,
  type JobStatus,
  nextStatus,
} from '../../../../src/service/jobs/states.ts'

const statuses: JobStatus[] = [
  'validating_files',
  'queued',
  'running',
  'paused',
  'succeeded',
  'failed',
  'cancelled',
]

const allowed: Array<[JobStatus, JobChange, JobStatus]> = [
  ['validating_files', 'files_validated', 'queued'],
  ['queued', 'started', 'running'],
  ['running', 'requeued', 'queued'],
  ['running', 'paused', 'paused'],
  ['paused', 'resumed', 'queued'],
  ['running', 'succeeded', 'succeeded'],
  ['validating_files', 'failed', 'failed'],
  ['queued', 'failed', 'failed'],
  ['running', 'failed', 'failed'],
  ['validating_files', 'cancelled', 'cancelled'],
  ['queued', 'cancelled', 'cancelled'],
  ['running', 'cancelled', 'cancelled'],
  ['paused', 'cancelled', 'cancelled'],
]

test('a job moves along the documented arrows and along no other', () => {
  const changes = [...new Set(allowed.map(([, change]) => change))]
  for (const status of statuses)
    for (const change of changes) {
      const arrow = allowed.find(([from, by]) => from === status && by === change)
      expect([status, change, nextStatus(status, change)]).toEqual([status, change, arrow?.[2]])
    }
})

test('nothing leads out of a terminal state', () => {
  for (const status of statuses) {
    const leaves = allowed.some(([from]) => from === status)
    expect([status, isTerminal(status)]).toEqual([status, !leaves])
  }
})
