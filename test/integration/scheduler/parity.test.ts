import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Serving } from '../../../src/service/scheduler/serving.ts'
import { startTraining, type TrainingOptions } from '../../../src/service/scheduler/training.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { testLog } from '../../support/log.ts'
import { shared } from '../../support/shared.ts'

const stories = shared('models/stories260k')
const TEMPLATE = `{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}`

const chats = Array.from({ length: 12 }, (_, i) =>
  JSON.stringify({
    messages: [
      { role: 'user', content: `What did cat ${i} say?` },
      { role: 'assistant', content: `Cat ${i} said hello.` },
    ],
  }),
).join('\n')

const completions = Array.from({ length: 12 }, (_, i) =>
  JSON.stringify({ prompt: `Cat ${i} said`, completion: ` hello ${i * 7}.` }),
).join('\n')

describe.skipIf(stories.missing)(
  'a model is published only if it will be served as it was trained',
  () => {
    let service: TestApi
    let models = ''
    beforeAll(async () => {
      models = await mkdtemp(join(tmpdir(), 'luthier-models-'))
      for (const name of ['right', 'bos', 'template', 'dropped', 'quantised']) {
        await cp(stories.path, join(models, name), { recursive: true })
        await writeFile(join(models, name, 'chat_template.jinja'), TEMPLATE)
      }
      service = await openTestApi({ models })
    })
    afterAll(async () => {
      await service?.[Symbol.asyncDispose]()
      await rm(models, { recursive: true, force: true })
    })

    /** Tunes a base model to the end. */
    async function tune(
      model: string,
      {
        serving = service.serving,
        rows = chats,
      }: { serving?: TrainingOptions['serving']; rows?: string } = {},
    ) {
      await using _ = startTraining({
        stores: service.stores,
        models: service.models,
        cache: join(service.folder, 'weights'),
        precision: 'fp32',
        log: testLog,
        adapterFile: service.adapterFile,
        serving,
        pool: service.pool,
        compute: { device: 'cpu', threads: 1 },
        folders: [],
        poll_seconds: 0.2,
      })
      const [training_file, validation_file] = [
        await service.upload(rows),
        await service.upload(rows),
      ]
      const { body } = await service.post('/v1/fine_tuning/jobs', {
        model,
        training_file,
        validation_file,
        hyperparameters: { n_epochs: 2, batch_size: 6 },
      })
      for (;;) {
        const job = (await service.get(`/v1/fine_tuning/jobs/${body.id}`)).body
        if (['succeeded', 'failed'].includes(job.status)) return job
        await sleep(50)
      }
    }

    /** What clients see of a job whose model is held back. */
    async function expectRefused(job: { id: string; fine_tuned_model: null }, why: RegExp) {
      expect(job).toMatchObject({
        status: 'failed',
        fine_tuned_model: null,
        error: { code: 'parity_check_failed', message: expect.stringMatching(why), param: null },
      })
      const sql = 'select model_name from fine_tuning_jobs where id = $1'
      const [{ model_name }] = (await service.db.query(sql, [job.id])).rows
      expect((await service.get(`/v1/models/${model_name}`)).status).toBe(404)
      const { data } = (await service.get(`/v1/fine_tuning/jobs/${job.id}/checkpoints`)).body
      const names = data.map(
        (c: { fine_tuned_model_checkpoint: string }) => c.fine_tuned_model_checkpoint,
      )
      expect(names).toEqual([`${model_name}:ckpt-step-4`, `${model_name}:ckpt-step-2`])
      for (const name of names) expect((await service.get(`/v1/models/${name}`)).status).toBe(200)
    }

    const baseOf = (model: string) => service.models.resolve(service.project_id, model)

    test('and says with what certainty, on the model and in its signed statement', async () => {
      const { fine_tuned_model, error } = await tune('right')
      expect(error).toBe(null)
      const { body } = await service.get(`/v1/models/${fine_tuned_model}`)
      expect(body.parity).toMatchObject({
        file: 'validation',
        lines: [1, 4, 7, 10],
        tolerance: 5e-4,
        template_sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
        precision: { training: 'fp32', serving: 'fp32' },
        mean_kl: null,
      })
      expect(body.parity.tokens).toBeGreaterThan(20)
      expect(body.parity.worst_difference).toBeGreaterThan(0)
      expect(body.parity.worst_difference).toBeLessThan(5e-5)
      const signed = await service.get(`/v1/models/${fine_tuned_model}/provenance`)
      expect(signed.body.statement.parity).toEqual(body.parity)
    })

    test('and where no row can be asked of serving, the job says so', async () => {
      const rows = Array.from({ length: 12 }, (_, i) =>
        JSON.stringify({
          messages: [
            { role: 'user', content: `What did cat ${i} say?` },
            { role: 'assistant', content: `Cat ${i} said hello.` },
            { role: 'user', content: 'And then?' },
            { role: 'assistant', content: 'Nothing.', weight: 0 },
          ],
        }),
      ).join('\n')
      const job = await tune('right', { rows })
      expect(job.error).toBe(null)
      const { body } = await service.get(`/v1/models/${job.fine_tuned_model}`)
      expect(body.parity).toBe(null)
      const { data } = (await service.get(`/v1/fine_tuning/jobs/${job.id}/events?limit=50`)).body
      expect(data).toContainEqual(
        expect.objectContaining({
          level: 'warn',
          message: expect.stringContaining('not held against how it is served: no row of the'),
        }),
      )
    })

    test('not where training puts a second token before every text', async () => {
      await service.serving.warm(await baseOf('bos'))
      await rewrite('bos', 'tokenizer.json', (text) => {
        const tokenizer = JSON.parse(text)
        const bos = { SpecialToken: { id: '<s>', type_id: 0 } }
        tokenizer.post_processor = {
          type: 'TemplateProcessing',
          single: [bos, bos, { Sequence: { id: 'A', type_id: 0 } }],
          pair: [],
          special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
        }
        return JSON.stringify(tokenizer)
      })
      await expectRefused(
        await tune('bos', { rows: completions }),
        /prompt of line 1 of the validation file differently: token 1 is/,
      )
    })

    test('not where serving has another template', async () => {
      await service.serving.warm(await baseOf('template'))
      await rewrite('template', 'chat_template.jinja', (text) => text.replace(': ', ' - '))
      await expectRefused(
        await tune('template'),
        /Serving has another chat template \([0-9a-f]{12}\)/,
      )
    })

    test('not where serving drops the adapter', async () => {
      const job = await tune('dropped', {
        serving: {
          warm: (model) => service.serving.warm(model),
          certify: ({ adapter: _, ...base }, evidence) => service.serving.certify(base, evidence),
        },
      })
      await expectRefused(
        job,
        /Logits of the serving graph differ .* at line \d+ of the validation file/,
      )
    })

    test('and where a quantised base predicts as the one in float32 does', async () => {
      await using serving = new Serving({
        takeTurn: service.pool.serving.turns('serving'),
        threads: 1,
        precision: 'int8',
        cache: join(service.folder, 'cache'),
        adapterFile: service.adapterFile,
        log: testLog,
      })
      const { fine_tuned_model, error } = await tune('quantised', { serving })
      expect(error).toBe(null)
      const { parity } = (await service.get(`/v1/models/${fine_tuned_model}`)).body
      expect(parity.precision).toEqual({ training: 'fp32', serving: 'int8' })
      expect(parity.mean_kl).toBeGreaterThan(0)
      expect(parity.mean_kl).toBeLessThanOrEqual(0.02)
      expect(parity.worst_difference).toBeLessThan(5e-5)
    })

    async function rewrite(model: string, file: string, change: (text: string) => string) {
      const path = join(models, model, file)
      await writeFile(path, change(await readFile(path, 'utf8')))
    }
  },
)
