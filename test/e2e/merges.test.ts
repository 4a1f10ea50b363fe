// Merges through the API of a real server: asked for as a YAML, killed in the middle, on a disk that is full.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { writeSafetensors } from '../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../src/engine/weights/stored-tensor.ts'
import { isSealedBy } from '../../src/service/provenance/sealed.ts'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { type Reply, requestsTo } from '../support/requests.ts'
import { shared } from '../support/shared.ts'
import { writeTinyModel } from '../support/tiny-model.ts'

const stories = shared('models/stories260k')
const base = 'stories260k'
const MERGES = '/fine_tuning/alpha/merges'
const ROW = {
  messages: [
    { role: 'user', content: 'Once upon a time' },
    { role: 'assistant', content: ' Tom and Sam had a red car.' },
  ],
}
/** Large enough to be interrupted: 54 MB. */
const LARGE = {
  hidden_size: 256,
  intermediate_size: 1024,
  num_hidden_layers: 12,
  max_position_embeddings: 64,
}
const DELLA = {
  merge_method: 'della',
  base_model: 'large',
  models: [{ model: 'larger', parameters: { weight: 0.5, density: 0.4 } }],
  random_seed: 5,
  max_shard_size: '20MB',
}

describe.skipIf(stories.missing)('merges', () => {
  let server: LuthierServer
  beforeAll(async () => {
    const home = makeHome({ [base]: stories.path })
    const large = await writeTinyModel(join(home, 'models', 'large'), { config: LARGE })
    const larger = await writeTinyModel(join(home, 'models', 'larger'), { config: LARGE })
    const { tensors } = await openCheckpoint(large)
    const halved = await Promise.all(
      [...tensors.values()].map(async (tensor) => ({
        name: tensor.name,
        dims: tensor.dims,
        data: (await readTensor(tensor)).map((x) => x / 2),
      })),
    )
    await writeFile(join(larger, 'model.safetensors'), writeSafetensors(halved))
    const nan = await writeTinyModel(join(home, 'models', 'nan'))
    const broken = await writeTinyModel(join(home, 'models', 'broken'))
    const file = join(nan, 'model.safetensors')
    const norm = (await openCheckpoint(nan)).tensors.get('model.norm.weight')!
    const bytes = await readFile(file)
    await writeFile(join(broken, 'model.safetensors'), bytes.subarray(0, bytes.length - 64))
    bytes.writeFloatLE(Number.NaN, norm.offset)
    await writeFile(file, bytes)
    server = await startLuthier(home)
  }, 120_000)
  afterAll(() => server?.[Symbol.asyncDispose]())

  const { send, ask, until, ended, upload } = requestsTo(() => server)
  const tune = async (model: string): Promise<string> => {
    const id = await upload(Array(16).fill(ROW))
    const hyperparameters = { n_epochs: 3, batch_size: 4 }
    const job = await ask('/fine_tuning/jobs', { model, training_file: id, hyperparameters })
    return (await ended(`/fine_tuning/jobs/${job.id}`)).fine_tuned_model
  }
  const answer = async (model: string): Promise<string> => {
    const messages = [{ role: 'user', content: 'Once upon a time' }]
    const reply = await ask('/chat/completions', {
      model,
      messages,
      max_tokens: 12,
      temperature: 0,
    })
    return reply.choices[0].message.content
  }
  const hashes = async (model: string) =>
    (await ask(`/models/${encodeURIComponent(model)}/provenance`)).statement.base.files
  const workFolders = () => {
    const folder = join(server.home, 'cache', 'models')
    return existsSync(folder) ? readdirSync(folder).filter((name) => name.startsWith('.')) : []
  }

  test('a YAML becomes a model that answers, says what it was made of, is tuned again, and goes', async () => {
    const tuned = await tune(base)
    const created = await ask(
      MERGES,
      `
name: cars
merge_method: task_arithmetic
base_model: ${base}
models:
  - model: ${base}+${tuned}
    parameters: { weight: 1 }
`,
      'application/yaml',
    )
    expect(created).toMatchObject({
      object: 'fine_tuning.merge',
      merged_model: null,
      models: [base, tuned],
      config: { merge_method: 'task_arithmetic' },
    })
    const merge = await ended(`${MERGES}/${created.id}`)
    const model = merge.merged_model
    expect(merge).toMatchObject({ status: 'succeeded', tensors_done: merge.tensors })
    expect(model).toMatch(/^ft:stories260k:luthier:cars:.{8}$/)
    expect((await ask(MERGES)).data.map(({ id }: Reply) => id)).toContain(created.id)
    const { data: events } = await ask(`${MERGES}/${created.id}/events`)
    expect(events.map(({ message }: Reply) => message).join('\n')).toMatch(
      /has completed[\s\S]*Merging \d+ tensors[\s\S]*Created merge/,
    )

    // At weight 1 all of the task is added: the same model, but with one set of weights.
    expect(await answer(model)).toBe(await answer(tuned))
    expect(await answer(model)).not.toBe(await answer(base))
    const { data: models } = await ask('/models')
    expect(models.map(({ id }: Reply) => id)).toContain(model)
    expect(await ask(`/models/${encodeURIComponent(model)}`)).toMatchObject({
      id: model,
      root: model,
      job_id: null,
    })

    const name = encodeURIComponent(model)
    const row_sha256 = createHash('sha256').update(JSON.stringify(ROW)).digest('hex')
    const learned = await ask(`/provenance/models?row_sha256=${row_sha256}`)
    expect(learned.data.map((entry: Reply) => entry.model)).toEqual(
      expect.arrayContaining([tuned, model]),
    )
    // And from the row on to the answers that were kept, of the merged model too.
    const messages = [{ role: 'user', content: 'Once upon a time' }]
    const kept = await ask('/chat/completions', { model, messages, max_tokens: 4, store: true })
    await ask('/chat/completions', { model: base, messages, max_tokens: 4, store: true })
    const influenced = await ask(`/provenance/completions?row_sha256=${row_sha256}`)
    expect(influenced.data).toEqual([expect.objectContaining({ id: kept.id, model })])

    const sealed = await ask(`/models/${name}/provenance`)
    expect(sealed.statement).toMatchObject({
      parents: expect.arrayContaining([base, tuned]),
      merge: { merge: created.id, config: { merge_method: 'task_arithmetic' } },
    })
    const { public_key } = await ask('/provenance/key')
    expect(isSealedBy(sealed, public_key)).toBe(true)
    const weights = await send(`/models/${name}/weights?format=hf`)
    expect(weights.status).toBe(200)
    const tar = Buffer.from(await weights.arrayBuffer())
    expect(tar.byteLength).toBeGreaterThan(1_000_000)
    // The card lies beside the weights, and says what was merged.
    expect(tar.toString('latin1')).toMatch(/README\.md[\s\S]*## Merge\n\n- Merge ftmerge/)

    const again = await tune(model)
    expect(again).toMatch(/^ft:stories260k:luthier::.{8}$/)
    expect(await answer(again)).toContain('Tom')
    const remove = (id: string) =>
      fetch(`${server.baseURL}/models/${encodeURIComponent(id)}`, {
        method: 'DELETE',
        headers: { authorization: `Bearer ${server.apiKey}` },
      })
    const refused = await remove(model)
    expect(refused.status).toBe(400)
    const { error }: Reply = await refused.json()
    expect(error).toMatchObject({ code: 'model_in_use' })
    const before = (await server.stored()).length
    expect((await remove(again)).status).toBe(200)
    expect((await remove(model)).status).toBe(200)
    expect((await server.stored()).length).toBeLessThan(before - 2)
    expect((await send(`/models/${name}`)).status).toBe(404)
  })

  test('adapters become one adapter, which is served beside its base; an adapter is taken out of a model', async () => {
    const [one, two] = [await tune(base), await tune(base)]
    const config = {
      adapters: [one, two],
      weights: [0.5, 0.5],
      combination_type: 'cat',
      name: 'both',
    }
    const { id } = await ask(MERGES, { config })
    const { merged_model: both, models, tensors } = await ended(`${MERGES}/${id}`)
    expect(models).toEqual([one, two])
    expect(tensors).toBeGreaterThan(0)
    expect(both).toMatch(/^ft:stories260k:luthier:both:.{8}$/)
    // Equal jobs give equal adapters, and half of each is the whole of one.
    expect(await answer(both)).toBe(await answer(one))
    const name = encodeURIComponent(both)
    expect(await ask(`/models/${name}`)).toMatchObject({ id: both, root: base })
    const { statement } = await ask(`/models/${name}/provenance`)
    expect(statement).toMatchObject({ parents: [one, two].sort(), merge: { merge: id } })
    expect(statement.weights.sha256).toMatch(/^[0-9a-f]{64}$/)
    expect((await send(`/models/${name}/weights?format=peft`)).status).toBe(200)
    const again = await tune(both)
    expect(await answer(again)).toContain('Tom')

    const whole = await ask(MERGES, {
      config: { merge_method: 'passthrough', models: [{ model: `${base}+${one}` }] },
    })
    const folded = (await ended(`${MERGES}/${whole.id}`)).merged_model
    expect(await answer(folded)).toBe(await answer(one))
    const extraction = await ask(MERGES, {
      config: { extract_adapter: folded, base_model: base, max_rank: 8 },
    })
    const { merged_model: extracted } = await ended(`${MERGES}/${extraction.id}`)
    expect(await ask(`/models/${encodeURIComponent(extracted)}`)).toMatchObject({ root: base })
    expect(await answer(extracted)).toBe(await answer(one))
    const { data: events } = await ask(`${MERGES}/${extraction.id}/events`)
    expect(events.map(({ message }: Reply) => message).join('\n')).toMatch(
      /The adapter has (100\.00|99\.9\d) % of the squared difference/,
    )
    expect(workFolders()).toEqual([])
  })

  test('a search chooses the weights of adapters by the loss on a validation file', async () => {
    const one = await tune(base)
    // Nothing of the adapter is where the search begins.
    const config = {
      adapters: [one],
      weights: [0],
      combination_type: 'cat',
      random_seed: 2,
      search: { validation_file: await upload(Array(4).fill(ROW)), budget: 8, weights: [0, 1.5] },
    }
    const { id } = await ask(MERGES, { config })
    const { merged_model, chosen } = await ended(`${MERGES}/${id}`)
    const { data: events } = await ask(`${MERGES}/${id}/events`)
    const candidates = events
      .map(({ message }: Reply) => /^Candidate (\d+)\/8: .*loss ([\d.]+)/.exec(message))
      .filter((match: unknown) => match)
      .map((match: RegExpExecArray) => ({ at: Number(match[1]), loss: Number(match[2]) }))
      .toReversed()
    expect(candidates.map(({ at }: Reply) => at)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    const losses = candidates.map(({ loss }: Reply) => loss)
    expect(Math.min(...losses)).toBeLessThan(losses[0] - 0.5)
    expect(chosen).toMatchObject({ budget: 8, weights: [expect.any(Number)] })
    expect(chosen.loss).toBeCloseTo(Math.min(...losses), 3)
    expect(losses.indexOf(Math.min(...losses)) + 1).toBe(chosen.candidate)
    const { statement } = await ask(`/models/${merged_model}/provenance`)
    expect(statement.merge.chosen).toEqual(chosen)
    expect(await answer(merged_model)).toContain('Tom')
    expect(await answer(base)).not.toContain('Tom')

    // Of whole models too: the first candidate is the base alone.
    const sources = [base, one].map((model, i) => ({ model, parameters: { weight: 1 - i } }))
    const search = { ...config.search, budget: 4 }
    const whole = { merge_method: 'linear', models: sources, random_seed: 2, search }
    const found = await ended(`${MERGES}/${(await ask(MERGES, { config: whole })).id}`)
    expect(found.chosen).toMatchObject({
      budget: 4,
      weights: [expect.any(Number), expect.any(Number)],
    })
    expect(found.chosen.candidate).toBeGreaterThan(1)
    expect(found.chosen.loss).toBeLessThan(losses[0])
    expect(await answer(found.merged_model)).not.toBe(await answer(base))
    expect(workFolders()).toEqual([])
  })

  test('every method and every way of combining is known by its name, and no other', async () => {
    const refusal = async (config: object): Promise<string> => {
      const { error }: Reply = await (await send(MERGES, { config })).json()
      return `${error.code}: ${error.message}`
    }
    const missing = (n: number) => ({
      base_model: 'nowhere',
      models: Array.from({ length: n }, (_, i) => ({ model: `nowhere-${i}` })),
    })
    for (const [merge_method, others] of Object.entries({
      linear: 2,
      slerp: 1,
      nuslerp: 2,
      multislerp: 2,
      karcher: 2,
      task_arithmetic: 2,
      ties: 2,
      dare_linear: 2,
      dare_ties: 2,
      della: 2,
      della_linear: 2,
      breadcrumbs: 2,
      breadcrumbs_ties: 2,
      sce: 2,
      model_stock: 2,
      nearswap: 1,
      arcee_fusion: 1,
    }))
      expect(await refusal({ merge_method, ...missing(others) }), merge_method).toMatch(/nowhere/)
    const alone = { merge_method: 'passthrough', models: [{ model: 'nowhere' }] }
    expect(await refusal(alone)).toMatch(/nowhere/)
    expect(await refusal({ merge_method: 'average', ...missing(2) })).toMatch(/^unsupported_method/)
    for (const combination_type of [
      'linear',
      'cat',
      'svd',
      'ties',
      'ties_svd',
      'dare_linear',
      'dare_ties',
      'dare_linear_svd',
      'dare_ties_svd',
      'magnitude_prune',
      'magnitude_prune_svd',
    ]) {
      const config = { adapters: ['nowhere', 'none'], weights: [1, 1], density: 0.5 }
      expect(await refusal({ ...config, combination_type }), combination_type).toMatch(/nowhere/)
      expect(await refusal({ ...config, combination_type: `${combination_type}s` })).toMatch(
        /^unsupported_method/,
      )
    }
  })

  test('killed in the middle, a merge goes on and gives the same bytes', async () => {
    const straight = await ended(`${MERGES}/${(await ask(MERGES, { config: DELLA })).id}`)
    const { id } = await ask(MERGES, { config: DELLA })
    await until(`${MERGES}/${id}`, ({ tensors_done }) => tensors_done > 0)
    await server.kill()
    expect(workFolders()).toEqual([`.making-${id}`])
    await server.start()
    const resumed = await ended(`${MERGES}/${id}`)
    const { data: events } = await ask(`${MERGES}/${id}/events`)
    const told = events.map(({ message }: Reply) => message).join('\n')
    expect(told).toMatch(/[1-9]\d* of them done before/)
    const bytes = await hashes(resumed.merged_model)
    expect(Object.keys(bytes).filter((name) => name.endsWith('.safetensors')).length).toBe(3)
    expect(bytes).toEqual(await hashes(straight.merged_model))
    expect(workFolders()).toEqual([])
  })

  test('a cancelled merge leaves nothing, and is cancelled once', async () => {
    const { id } = await ask(MERGES, { config: DELLA })
    await until(`${MERGES}/${id}`, ({ tensors_done }) => tensors_done > 0)
    expect(await ask(`${MERGES}/${id}/cancel`, {})).toMatchObject({
      status: 'cancelled',
      merged_model: null,
    })
    expect((await send(`${MERGES}/${id}/cancel`, {})).status).toBe(400)
    for (let waited = 0; workFolders().length > 0 && waited < 20_000; waited += 100)
      await sleep(100)
    expect(workFolders()).toEqual([])
  })

  test('a full disk ends a merge with a clear error, and nothing is registered', async () => {
    const models = (await ask('/models')).data.length
    const stored = await server.stored()
    // No file may grow beyond: what a write then meets is what it meets on a disk without room.
    execFileSync('prlimit', ['--pid', String(server.pid), '--fsize=5000000:unlimited'])
    const { id } = await ask(MERGES, { config: DELLA })
    const failed = await until(`${MERGES}/${id}`, ({ finished_at }) => finished_at !== null)
    execFileSync('prlimit', ['--pid', String(server.pid), '--fsize=unlimited:unlimited'])
    expect(failed).toMatchObject({
      status: 'failed',
      merged_model: null,
      error: {
        code: 'insufficient_storage',
        message: expect.stringContaining('no more room for its files on the disk'),
      },
    })
    expect((await ask('/models')).data.length).toBe(models)
    expect(await server.stored()).toEqual(stored)
    expect(workFolders()).toEqual([])
    await ended(`${MERGES}/${(await ask(MERGES, { config: DELLA })).id}`)
  })

  test('weights that are NaN end a merge with their tensor, and nothing is registered', async () => {
    const models = (await ask('/models')).data.length
    const config = { merge_method: 'linear', models: [{ model: 'nan' }], parameters: { weight: 1 } }
    const { id } = await ask(MERGES, { config })
    const failed = await until(`${MERGES}/${id}`, ({ finished_at }) => finished_at !== null)
    expect(failed).toMatchObject({
      status: 'failed',
      error: {
        code: 'merge_failed',
        message: expect.stringContaining('tensor model.norm.weight: its weights hold NaN'),
      },
    })
    expect((await ask('/models')).data.length).toBe(models)
    expect(workFolders()).toEqual([])
  })

  test.each([
    [
      'a YAML that unfolds without end',
      `a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n${Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${Array(10).fill(`*a${i}`)}]`).join('\n')}`,
      /cannot be read: .*alias/,
    ],
    [
      'a shard that lies about its bytes',
      { merge_method: 'linear', models: [{ model: 'broken' }] },
      /cannot be merged: model\.safetensors: tensor/,
    ],
    [
      'models that do not fit',
      { merge_method: 'linear', models: [{ model: base }, { model: 'large' }] },
      /do not fit together: the tensor \S+ has the shape \[\d+,\d+\] in stories260k and \[\d+,\d+\] in large/,
    ],
    [
      'a model that is not there',
      { merge_method: 'passthrough', models: [{ model: '../x' }] },
      /does not exist/,
    ],
    ['an unknown method', { merge_method: 'blend', models: [{ model: base }] }, /merge_method/],
    [
      'a base model among adapters',
      { adapters: [base], weights: [1] },
      /`stories260k` is not an adapter/,
    ],
    [
      'a search without its rows',
      { adapters: [base], weights: [1], search: { validation_file: 'file-none' } },
      /is not an adapter|does not exist/,
    ],
    [
      'an adapter to be extracted from another shape',
      { extract_adapter: 'large', base_model: base },
      /the tensor \S+ has the shape \[\d+,\d+\] in stories260k and \[\d+,\d+\] in large|is missing in stories260k/,
    ],
    ['two documents', 'merge_method: linear\n---\nmerge_method: linear\n', /one document/],
  ])('is refused before any work: %s', async (_, config, why) => {
    const settings =
      typeof config === 'string' || !('merge_method' in config)
        ? config
        : { ...config, parameters: { weight: 1 } }
    const reply = await send(MERGES, { config: settings })
    expect([400, 404]).toContain(reply.status)
    const { error }: Reply = await reply.json()
    expect(error.message).toMatch(why)
    expect(error.message).not.toContain(server.home)
  })
})
