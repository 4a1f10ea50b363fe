// What banking77.ts --curves and banking77_peft.py --curves came to, side by side: int8, float32 and PEFT on the same batches.
//
//   npx tsx bench/peers/curves.ts OUT

import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

interface Curve {
  readonly seed: number
  readonly losses: readonly number[]
  readonly valid_loss: number
  readonly exact_valid_loss?: number
}

const LAST = 20
const out = process.argv[2]
if (!out) throw new Error('usage: curves.ts OUT')
const files = await readdir(out)
const curvesOf = async (prefix: string): Promise<Curve[]> => {
  const found = files.filter((name) => name.startsWith(prefix) && name.endsWith('.json'))
  const all = await Promise.all(
    found.map(async (name) => JSON.parse(await readFile(join(out, name), 'utf8')) as Curve[]),
  )
  return all.flat().sort((a, b) => a.seed - b.seed)
}
const mean = (xs: readonly number[]) => xs.reduce((a, b) => a + b, 0) / xs.length
const [int8, fp32, peft] = [
  await curvesOf('luthier-int8-curves-'),
  await curvesOf('luthier-fp32-curves-'),
  await curvesOf('peft-curves-'),
]
const percent = (a: number, b: number) => `${((a / b - 1) * 100).toFixed(2)} %`

console.log('| Seed, steps | | int8 | fp32 | PEFT | int8 to fp32 | fp32 to PEFT |')
console.log('| --- | --- | --- | --- | --- | --- | --- |')
const print = (name: string, what: string, of: readonly (number | undefined)[]) => {
  const [a, b, c] = of
  const shown = of.map((x) => x?.toFixed(4) ?? '')
  const ratios = [
    a !== undefined && b !== undefined ? percent(a, b) : '',
    b !== undefined && c !== undefined ? percent(b, c) : '',
  ]
  console.log(`| ${[name, what, ...shown, ...ratios].join(' | ')} |`)
}
const sides = [int8, fp32, peft]
const rows = [
  ['last 20 steps', ({ losses }: Curve) => mean(losses.slice(-LAST))],
  ['validation', ({ valid_loss }: Curve) => valid_loss],
  [
    'validation, all in float32',
    ({ valid_loss, exact_valid_loss }: Curve) => exact_valid_loss ?? valid_loss,
  ],
] as const
for (const { seed, losses } of fp32)
  for (const [what, value] of rows)
    print(
      `${seed}, ${losses.length}`,
      what,
      sides.map((side) => {
        const curve = side.find((c) => c.seed === seed)
        return curve && value(curve)
      }),
    )
for (const [what, value] of rows)
  print(
    'mean',
    what,
    sides.map((side) => (side.length > 0 ? mean(side.map(value)) : undefined)),
  )
