import { expect, test } from 'vitest'
import { rankWorkers } from '../../../../src/service/scheduler/relayed-serving.ts'

const worker = (id: string, resident: string[], taken = 0) => ({
  id,
  url: `http://${id}`,
  token: id,
  resident,
  taken,
})
const ids = (ranked: readonly { id: string }[]) => ranked.map(({ id }) => id)

test('a worker that has the adapter goes before one that has the base, and that before the others', () => {
  const workers = [worker('none', []), worker('base', ['m']), worker('all', ['m', 'a'], 9)]
  const adapter = { sha256: 'a', config_sha256: 'c' }
  expect(ids(rankWorkers(workers, { root: 'm', adapter }))).toEqual(['all', 'base', 'none'])
})

test('of equals the least busy goes first', () => {
  const workers = [worker('busy', ['m'], 3), worker('free', ['m'], 1), worker('none', [])]
  expect(ids(rankWorkers(workers, { root: 'm' }))).toEqual(['free', 'busy', 'none'])
})
