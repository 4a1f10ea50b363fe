import { expect, test } from 'vitest'
import { checkpointName, tunedModelName } from '../../../../src/service/models/names.ts'

test('a tuned model is named after the model as sent, the organization and the suffix', () => {
  expect(tunedModelName('gpt-4o-mini', 'luthier', 'desk', 'AbCd1234')).toBe(
    'ft:gpt-4o-mini:luthier:desk:AbCd1234',
  )
})

test('without a suffix its place stays empty', () => {
  expect(tunedModelName('m', 'luthier', null, 'AbCd1234')).toBe('ft:m:luthier::AbCd1234')
})

test('what would break a name or a path is replaced in the suffix', () => {
  expect(tunedModelName('m', 'o', 'my desk: a/b', 'x')).toBe('ft:m:o:my-desk-a-b:x')
})

test('a checkpoint carries its step', () => {
  expect(checkpointName('ft:m:o::x', 12)).toBe('ft:m:o::x:ckpt-step-12')
})
