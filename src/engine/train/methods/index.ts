// The table of training methods: one line each.

import { classification } from './classification.ts'
import { dpo } from './dpo.ts'
import { embedding } from './embedding.ts'
import type { Method } from './method.ts'
import { supervised } from './supervised.ts'

const methods = { supervised, dpo, classification, embedding } satisfies Record<string, Method>

/** `method.type` of a job. */
export type MethodName = keyof typeof methods

/** What a job may name as its method. */
export const METHOD_NAMES = Object.keys(methods) as MethodName[]

export const methodOf = (name: MethodName): Method => methods[name]
