import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { spawn } from '../../../../src/engine/runtime/thread.ts'
import { inspect } from '../../../../src/engine/train/inspect.ts'
import type { TrainEvent, TrainThreadRequest } from '../../../../src/engine/train/request.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
const entry = new URL('../../../../src/engine/train/worker.ts', import.meta.url)

test.each([1, 2])(
  'a thread that is closed while its %i sessions open or run takes nothing else down',
  async (devices) => {
    const model = await writeTinyModel(join(folder, 'tiny'))
    const training = { path: join(folder, 'train.jsonl') }
    const rows = Array.from({ length: 12 }, (_, i) =>
      JSON.stringify({ prompt: `${i} is `, completion: i % 2 ? 'odd' : 'even' }),
    )
    await writeFile(training.path, rows.join('\n'))
    const common = { model, training, method: 'supervised' } as const
    const { plan } = await inspect({
      ...common,
      type: 'inspect',
      hyperparameters: { n_epochs: 5000, batch_size: 1, learning_rate_multiplier: 1 },
    })
    const started: boolean[] = []
    // From before its modules are loaded until it trains, at any moment.
    for (const wait of [0, 150, 300, 450, 600, 800, 1000, Number.POSITIVE_INFINITY]) {
      const thread = spawn<TrainThreadRequest, TrainEvent>(entry)
      let seen = false
      const running = (async () => {
        const cache = join(folder, 'cache')
        const request = { ...common, type: 'train' as const, cache, plan: plan!, seed: 1 }
        for await (const _ of thread.run({ ...request, plan: { ...plan!, devices, threads: 1 } }))
          seen = true
      })()
      const failed = expect(running).rejects.toThrow('The worker thread was closed.')
      if (wait < Number.POSITIVE_INFINITY) await sleep(wait)
      else while (!seen) await sleep(10)
      await thread[Symbol.asyncDispose]()
      await failed
      started.push(seen)
    }
    expect(started[0]).toBe(false)
    expect(started.at(-1)).toBe(true)
  },
)
