// Schemas that are hard on whoever compiles them.

/** A hundred of these patterns are computed in about a second, three hundred in half a minute. */
export const manyPatterns = (count: number) => ({
  anyOf: Array.from({ length: count }, (_, i) => ({
    type: 'string',
    pattern: `^[a-z]*${'x'.repeat(i % 17)}[a-y]{0,${i + 1}}$`,
  })),
})
