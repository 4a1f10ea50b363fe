import { expect, test } from 'vitest'
import { invalidRequest, overloaded, unavailable } from '../../../../src/errors.ts'
import { whenFree } from '../../../../src/service/scheduler/asking.ts'

const never = new AbortController().signal

test('a server that is full or away is waited for; what is wrong with the question is not', async () => {
  const answers = [overloaded('full'), unavailable('away'), 'an answer']
  const ask = async () => {
    const next = answers.shift()
    if (next instanceof Error) throw next
    return next
  }
  expect(await whenFree(never, ask)).toBe('an answer')
  const refused = async () => {
    throw invalidRequest('no')
  }
  await expect(whenFree(never, refused)).rejects.toMatchObject({ status: 400 })
})
