// Every merge method against mergekit (test/golden/merge.py), in float32 and rounded to bfloat16.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { keyOf, namedModels, parseMergeConfig } from '../../src/engine/merge/config.ts'
import { merge } from '../../src/engine/merge/merge.ts'
import { MERGE_METHODS } from '../../src/engine/merge/methods.ts'
import { encode } from '../../src/engine/merge/rounding.ts'
import { readMergeText } from '../../src/engine/merge/yaml.ts'
import { readSafetensorsHeader } from '../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../src/engine/weights/stored-tensor.ts'
import { temporaryFolder } from '../support/temporary.ts'

const FIXTURES = fileURLToPath(new URL('./fixtures/merge/', import.meta.url))
const { seed, cases } = JSON.parse(await readFile(join(FIXTURES, 'merge.json'), 'utf8')) as {
  seed: number
  cases: Record<string, string>
}

async function mergeCase(text: string, family: string, out: string) {
  // In two cases mergekit works in float64, as ours always does where angles are taken.
  const { dtype: _, ...said } = readMergeText(text)[0] as Record<string, unknown>
  const config = parseMergeConfig({ ...said, random_seed: seed })
  const models = Object.fromEntries(
    namedModels(config).map((name) => [
      keyOf(name),
      { path: join(FIXTURES, name.model.replace('M', `${family}-`)) },
    ]),
  )
  for await (const _ of merge({ config, models, out, threads: 1 }));
  return (await readSafetensorsHeader(join(out, 'model.safetensors'))).tensors
}

test('every method has a case', () => {
  const covered = new Set(
    Object.values(cases).map(
      (text) => (readMergeText(text)[0] as { merge_method: string }).merge_method,
    ),
  )
  expect([...MERGE_METHODS.keys()].filter((name) => !covered.has(name))).toEqual([])
})

describe.each(['llama', 'bert'])('three models of %s', (family) => {
  test.each(Object.entries(cases))('%s gives the numbers of mergekit', async (name, text) => {
    const ours = await mergeCase(text, family, temporaryFolder())
    const { tensors } = await readSafetensorsHeader(join(FIXTURES, `${family}.safetensors`))
    const theirs = [...tensors.values()].filter((tensor) => tensor.name.startsWith(`${name}/`))
    expect(theirs.map((tensor) => tensor.name.slice(name.length + 1)).sort()).toEqual(
      [...ours.keys()].sort(),
    )
    let flipped = 0
    for (const tensor of theirs) {
      const bare = tensor.name.slice(name.length + 1)
      const [a, b] = [await readTensor(ours.get(bare)!), await readTensor(tensor)]
      const most = b.reduce((m, x) => Math.max(m, Math.abs(x)), 0)
      const off = a.reduce((m, x, i) => Math.max(m, Math.abs(x - b[i]!)), 0)
      expect(off / most, bare).toBeLessThanOrEqual(1e-6)
      const [p, q] = [encode(a, 'BF16'), encode(b, 'BF16')]
      for (let i = 0; i < p.length; i += 2) if (p[i] !== q[i] || p[i + 1] !== q[i + 1]) flipped++
    }
    expect(flipped).toBe(0)
  })
})
