import { test } from 'vitest'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { expectGradient } from '../../../../support/gradient.ts'

test('mixBySoftmax: gradient meets finite differences', () =>
  expectGradient(op.mixBySoftmax, [
    [2, 3, 4, 5],
    [2, 3, 5, 2],
  ]))

test('mixBySoftmax: values that pieces of the queries share get the gradients of all of them', () =>
  expectGradient(op.mixBySoftmax, [
    [2, 3, 2, 4, 5],
    [2, 3, 1, 5, 2],
  ]))
