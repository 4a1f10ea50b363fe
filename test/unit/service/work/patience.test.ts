import { expect, test } from 'vitest'
import { invalidRequest } from '../../../../src/errors.ts'
import { LeaseLost } from '../../../../src/service/db/work.ts'
import { ObjectMissing } from '../../../../src/service/storage/object-store.ts'
import { Hopeless, patiently } from '../../../../src/service/work/patience.ts'

const withCode = (code: string) => Object.assign(new Error(code), { code })

/** Fails so many times with this error, then answers. */
function failing(error: Error, times: number) {
  const tries = { count: 0 }
  const attempt = async () => {
    if (tries.count++ < times) throw error
    return 'done'
  }
  return { attempt, tries }
}

test.each([
  ['a connection that is refused', withCode('ECONNREFUSED')],
  ['a disk that is full', withCode('ENOSPC')],
  ['a connection that ends', new Error('Connection terminated unexpectedly')],
  ['a server that is stopped', withCode('57P01')],
  ['a deadlock', withCode('40P01')],
  ['a connection exception', withCode('08006')],
])('%s passes', async (_, error) => {
  const { attempt, tries } = failing(error, 2)
  expect(await patiently(attempt)).toBe('done')
  expect(tries.count).toBe(3)
})

test.each([
  ['a lost lease', new LeaseLost('ftjob-1')],
  ["the caller's mistake", invalidRequest('no')],
  ['a broken rule of the database', withCode('23505')],
  ['a wrong query', withCode('42601')],
  ['a missing object', new ObjectMissing('p/0')],
  ['a mistake of our own', new TypeError('x is undefined')],
  ['what is declared hopeless', new Hopeless('no')],
])('%s does not pass, and is thrown at once', async (_, error) => {
  const { attempt, tries } = failing(error, 1)
  await expect(patiently(attempt)).rejects.toBe(error)
  expect(tries.count).toBe(1)
})

test('patience ends', async () => {
  const { attempt } = failing(withCode('ECONNREFUSED'), Number.POSITIVE_INFINITY)
  await expect(patiently(attempt, 0.5)).rejects.toThrow('ECONNREFUSED')
})
