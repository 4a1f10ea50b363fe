// One door to the operators: `import * as op from '../graph/ops/ops.ts'`.

export * from './activations.ts'
export * from './class-loss.ts'
export * from './dora.ts'
export * from './dropout.ts'
export * from './elementwise.ts'
export * from './int8.ts'
export * from './log-probs.ts'
export * from './loss.ts'
export * from './products.ts'
export * from './reduce.ts'
export * from './rotary.ts'
export * from './shape.ts'
