// Sums vitest's JSON reports by lane, names the files that took longest, and prints the closing line; the exit code is
// CI's verdict.

import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'

const [folder, failedSteps] = process.argv.slice(2)
const total = { passed: 0, failed: 0, skipped: 0 }
const SLOWEST = 10

for (const run of ['npm-test', 'embedded-s3', 'debian-folder', 'debian-s3']) {
  const file = join(folder, `${run}.json`)
  if (!existsSync(file)) {
    console.log(`${run}: no report`)
    total.failed++
    continue
  }
  const lanes = new Map()
  const { testResults } = JSON.parse(readFileSync(file, 'utf8'))
  for (const { name, status, assertionResults } of testResults) {
    const lane = /\/test\/([^/]+)\//.exec(name)?.[1] ?? 'other'
    const sum = lanes.get(lane) ?? { passed: 0, failed: 0, skipped: 0 }
    lanes.set(lane, sum)
    for (const test of assertionResults)
      sum[test.status === 'passed' ? 'passed' : test.status === 'failed' ? 'failed' : 'skipped']++
    // A file that could not even be collected has no tests, and is a failure all the same.
    if (status === 'failed' && !assertionResults.some((test) => test.status === 'failed'))
      sum.failed++
  }
  for (const [lane, sum] of [...lanes].sort()) {
    console.log(
      `${run}, ${lane}: ${sum.passed} passed, ${sum.failed} failed, ${sum.skipped} skipped`,
    )
    for (const key of Object.keys(total)) total[key] += sum[key]
  }
  const seconds = ({ startTime, endTime }) => (endTime - startTime) / 1000
  const slowest = testResults.toSorted((a, b) => seconds(b) - seconds(a)).slice(0, SLOWEST)
  const told = slowest.map((each) => `${basename(each.name)} ${seconds(each).toFixed(0)} s`)
  console.log(`${run}, the slowest files: ${told.join(', ')}`)
}

const steps = Number(failedSteps)
if (steps > 0) console.log(`${steps} steps failed`)
const failed = Math.max(total.failed, steps)
console.log(`${total.passed} passed, ${failed} failed, ${total.skipped} skipped`)
process.exitCode = failed > 0 || total.passed === 0 ? 1 : 0
