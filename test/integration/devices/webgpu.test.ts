import { setTimeout as sleep } from 'node:timers/promises'
import OpenAI, { toFile } from 'openai'
import { expect, test } from 'vitest'
import { luthier } from '../../support/command.ts'
import { makeHome, startLuthier } from '../../support/luthier-server.ts'
import { shared } from '../../support/shared.ts'
import { driver, gradientErrors, halfTrial, withDriver } from '../../support/webgpu.ts'

const stories = shared('models/stories260k')
const SLOW = 600_000

test.skipIf(driver.missing || stories.missing)(
  'losses and gradients of families, methods and adapters are those of the processor',
  { timeout: SLOW },
  async () => {
    const errors = await gradientErrors('webgpu', stories.path)
    expect(Object.keys(errors).length).toBeGreaterThanOrEqual(16)
    for (const [what, error] of Object.entries(errors)) expect(error, what).toBeLessThan(1e-4)
  },
)

test.skipIf(driver.missing)(
  'float16 is tried; the software device has none, says so, and trains in float32',
  { timeout: SLOW },
  async () => {
    const { precision, reason, steps } = await halfTrial('webgpu')
    expect(reason).toMatch(/^fp16 cannot be computed here: .*requires f16 but the device does not/)
    expect([precision, steps]).toEqual(['fp32', 2])
  },
)

test.skipIf(driver.missing)('the command line tries it out', { timeout: SLOW }, async () => {
  const { stdout } = await luthier(withDriver, 'devices')
  const [, error] = /^webgpu\tusable: .* differs from the processor's by (\S+)$/m.exec(stdout) ?? []
  expect(Number(error), stdout).toBeLessThan(1e-4)
  expect(stdout).toMatch(/^cpu\tusable: \d+ threads$/m)
})

test.skipIf(driver.missing || stories.missing)(
  'a server on it trains what one on the processor trains, and answers by it',
  { timeout: SLOW },
  async () => {
    const train = async (settings: Record<string, string>) => {
      await using server = await startLuthier(makeHome({ stories260k: stories.path }), settings)
      const log = server.log()
      const client = new OpenAI({ baseURL: server.baseURL, apiKey: server.apiKey, maxRetries: 0 })
      const rows = Array.from({ length: 10 }, (_, i) =>
        JSON.stringify({ prompt: `Cat ${i} said`, completion: ` hello ${i * 7}.` }),
      )
      const file = await toFile(Buffer.from(rows.join('\n')), 'rows.jsonl')
      const { id } = await client.fineTuning.jobs.create({
        model: 'stories260k',
        training_file: (await client.files.create({ file, purpose: 'fine-tune' })).id,
        seed: 7,
        hyperparameters: { n_epochs: 2, batch_size: 5 },
      })
      while (true) {
        const job = await client.fineTuning.jobs.retrieve(id)
        if (['succeeded', 'failed'].includes(job.status)) {
          expect(job.error, JSON.stringify(job.error)).toEqual(null)
          const result = await client.files.content(job.result_files[0]!)
          const { choices } = await client.completions.create({
            model: job.fine_tuned_model!,
            prompt: 'Cat 1 said',
            max_tokens: 4,
            temperature: 0,
          })
          const losses = (await result.text())
            .trim()
            .split('\n')
            .slice(1)
            .map((line) => Number(line.split(',')[1]))
          const { statement } = await client.get<{ statement: { weights: { sha256: string } } }>(
            `/models/${encodeURIComponent(job.fine_tuned_model!)}/provenance`,
          )
          return { losses, text: choices[0]!.text, log, weights: statement.weights.sha256 }
        }
        await sleep(200)
      }
    }
    const want = await train({})
    const got = await train({ LUTHIER_DEVICE: 'webgpu', ...withDriver })
    expect(got.log).toContainEqual(
      expect.objectContaining({ device: 'webgpu', msg: 'device has passed its self-test' }),
    )
    expect(want.losses).toHaveLength(4)
    for (const [i, loss] of want.losses.entries())
      expect(Math.abs(got.losses[i]! - loss) / loss).toBeLessThan(1e-4)
    // Not the same bytes: it was computed elsewhere.
    expect(got.weights).not.toBe(want.weights)
    expect(got.text).toBe(want.text)
  },
)

test('a device that cannot be used ends the start, with what it needs', {
  timeout: SLOW,
}, async () => {
  const nothing = { LD_LIBRARY_PATH: '', VK_ICD_FILENAMES: '/nowhere', VK_DRIVER_FILES: '/nowhere' }
  const start = startLuthier(makeHome({}), { LUTHIER_DEVICE: 'webgpu', ...nothing })
  await expect(start).rejects.toThrow(/The device webgpu cannot be used \(.*\)\. It needs a driver/)
})

test.each([
  [{ LUTHIER_DEVICE: 'webgpu', LUTHIER_PRECISION: 'int8' }, "'int8' is not computed on webgpu"],
  [{ LUTHIER_DEVICE: 'webgpu,webgpu' }, 'one webgpu is all that a process can use'],
])('%o is refused', async (settings, message) => {
  const { code, stderr } = await luthier(settings, 'models')
  expect(code).toBe(1)
  expect(stderr).toContain(message)
})
