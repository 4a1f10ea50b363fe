// Models from outside through the API of a real server and by the command line: an adapter that PEFT wrote, a Hugging
// Face folder, a GGUF; and everything that is refused, with a reason.

import { execFile, execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { readGguf } from '../../src/engine/weights/gguf.ts'
import { writeSafetensors } from '../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../src/engine/weights/stored-tensor.ts'
import { TAR_END, tarHeader, tarPadding } from '../../src/service/models/tar.ts'
import { fixturePath, readFixtureTensor } from '../support/fixtures.ts'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { shared } from '../support/shared.ts'

const stories = shared('models/stories260k')
const base = 'stories260k'
const IMPORTS = '/fine_tuning/alpha/imports'
const ROW = JSON.stringify({
  messages: [
    { role: 'user', content: 'Once upon a time' },
    { role: 'assistant', content: ' Tom and Sam had a red car.' },
  ],
})

// biome-ignore lint/suspicious/noExplicitAny: a test looks into what it expects
type Reply = any
type Named = [name: string, bytes: Uint8Array]

const tarOf = (files: readonly Named[]) =>
  Buffer.concat([
    ...files.flatMap(([name, bytes]) => [
      tarHeader(name, bytes.length),
      bytes,
      tarPadding(bytes.length),
    ]),
    TAR_END,
  ])
const filesOf = (folder: string): Named[] =>
  readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))])

describe.skipIf(stories.missing)('imports', () => {
  let server: LuthierServer
  let models: string
  beforeAll(async () => {
    const home = makeHome({ [base]: stories.path })
    models = join(home, 'models')
    server = await startLuthier(home)
  }, 120_000)
  afterAll(() => server?.[Symbol.asyncDispose]())

  const send = (path: string, body?: object, method = body ? 'POST' : 'GET') =>
    fetch(`${server.baseURL}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${server.apiKey}`,
        ...(body && !(body instanceof FormData) && { 'content-type': 'application/json' }),
      },
      ...(body && { body: body instanceof FormData ? body : JSON.stringify(body) }),
    })
  const ask = async (path: string, body?: object, method?: string): Promise<Reply> => {
    const reply = await send(path, body, method)
    if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`)
    return reply.json()
  }
  const ended = async (path: string): Promise<Reply> => {
    for (let waited = 0; waited < 120_000; waited += 100) {
      const body = await ask(path)
      if (body.finished_at !== null) return body
      await sleep(100)
    }
    throw new Error(`It has not ended: ${JSON.stringify(await ask(path))}`)
  }
  const upload = async (name: string, bytes: Uint8Array, purpose = 'user_data') => {
    const form = new FormData()
    form.set('purpose', purpose)
    form.set('file', new Blob([Uint8Array.from(bytes)]), name)
    return (await ask('/files', form)).id as string
  }
  const imported = async (files: readonly Named[], rest: object = {}): Promise<Reply> => {
    const ids: string[] = []
    for (const [name, bytes] of files) ids.push(await upload(name, bytes))
    const { id } = await ask(IMPORTS, { files: ids, ...rest })
    return ended(`${IMPORTS}/${id}`)
  }
  const tune = async (model: string): Promise<string> => {
    const file = await upload(
      'rows.jsonl',
      Buffer.from(Array(16).fill(ROW).join('\n')),
      'fine-tune',
    )
    const hyperparameters = { n_epochs: 3, batch_size: 4 }
    const job = await ask('/fine_tuning/jobs', { model, training_file: file, hyperparameters })
    const { fine_tuned_model, error } = await ended(`/fine_tuning/jobs/${job.id}`)
    if (!fine_tuned_model) throw new Error(JSON.stringify(error))
    return fine_tuned_model
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
  /** Objects beyond one for each file that is listed: those of models and of their checkpoints. */
  const ofModels = async (): Promise<number> =>
    (await server.stored()).length - (await ask('/files?limit=10000')).data.length
  const names = async () => (await ask('/models')).data.map(({ id }: Reply) => id)
  const luthier = async (...args: string[]) => {
    const env = { ...process.env, ...server.settings, LUTHIER_API_KEY: server.apiKey }
    const command = ['--import', 'tsx', 'src/cli/luthier.ts', ...args]
    const { stdout } = await promisify(execFile)(process.execPath, command, { env })
    return stdout
  }
  const unpacked = async (model: string, format: string): Promise<string> => {
    const reply = await send(`/models/${encodeURIComponent(model)}/weights?format=${format}`)
    expect(reply.status).toBe(200)
    const folder = join(server.home, `unpacked-${Math.random()}`)
    mkdirSync(folder)
    execFileSync('tar', ['-x', '-C', folder], { input: Buffer.from(await reply.arrayBuffer()) })
    return folder
  }

  test('an adapter that PEFT trained answers as in Python, is exported as it came, tuned again and goes', async () => {
    const before = await ofModels()
    const files = filesOf(fixturePath('adapters.all'))
    const one = await imported(files, { base_model: base, suffix: 'from peft' })
    expect(one).toMatchObject({ status: 'succeeded', kind: 'adapter', error: null })
    const model = one.imported_model
    expect(model).toMatch(/^ft:stories260k:luthier:from-peft:.{8}$/)
    expect(await names()).toContain(model)

    const prompt = [...(await readFixtureTensor('adapters.logits.safetensors', 'tokens'))]
    const logits = await readFixtureTensor('adapters.logits.safetensors', 'all')
    const all = Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0))
    const want = [...logits].map((x) => x - all).sort((a, b) => b - a)
    const reply = await ask('/completions', {
      model,
      prompt,
      max_tokens: 1,
      logprobs: 5,
      temperature: 0,
    })
    const got: number[] = Object.values<number>(reply.choices[0].logprobs.top_logprobs[0])
    expect(got.length).toBe(5)
    for (const [i, logprob] of got.sort((a, b) => b - a).entries())
      expect(Math.abs(logprob - want[i]!)).toBeLessThan(1e-3)

    const { statement } = await ask(`/models/${encodeURIComponent(model)}/provenance`)
    expect(statement).toMatchObject({
      parents: [base],
      training: null,
      imported: { import: one.id, kind: 'adapter' },
    })
    expect(statement.imported.received).toEqual(one.files)
    const out = await unpacked(model, 'peft')
    for (const [name, bytes] of files)
      if (name !== 'README.md') expect(readFileSync(join(out, name)).equals(bytes), name).toBe(true)
    expect(await luthier('verify', out)).toContain('as they were signed')

    const again = await tune(model)
    expect(await answer(again)).toContain('Tom')
    for (const id of [again, model])
      expect((await send(`/models/${encodeURIComponent(id)}`, undefined, 'DELETE')).status).toBe(
        200,
      )
    expect(await names()).not.toContain(model)
    expect(await ofModels()).toBeLessThanOrEqual(before)
  })

  test('a Hugging Face folder in a tar, with what others leave beside it', async () => {
    const template = readFileSync(join(models, base, 'chat_template.jinja'))
    const files: Named[] = [
      ...filesOf(stories.path).map(([name, bytes]): Named => [`./made/${name}`, bytes]),
      ['./made/chat_template.jinja', template],
      ['./made/optimizer.pt', Buffer.from('x')],
      ['./made/1_Pooling/config.json', Buffer.from('{}')],
    ]
    const before = await ofModels()
    const one = await imported([['made.tar', tarOf(files)]])
    expect(one).toMatchObject({ status: 'succeeded', kind: 'folder' })
    expect(one.ignored).toEqual(
      expect.arrayContaining(['made/optimizer.pt', 'made/1_Pooling/config.json']),
    )
    const model = one.imported_model
    expect(model).toMatch(/^ft:made:luthier::.{8}$/)
    expect(await ask(`/models/${encodeURIComponent(model)}`)).toMatchObject({
      parent: null,
      root: model,
    })
    expect(await answer(model)).toBe(await answer(base))
    const tuned = await tune(model)
    expect(await answer(tuned)).toContain('Tom')

    const merge = await ask('/fine_tuning/alpha/merges', {
      config: { merge_method: 'linear', models: [{ model, parameters: { weight: 1 } }] },
    })
    const { merged_model } = await ended(`/fine_tuning/alpha/merges/${merge.id}`)
    expect(await answer(merged_model)).toBe(await answer(base))

    const out = await unpacked(model, 'hf')
    expect(await luthier('verify', out)).toContain('as they were signed')
    const remove = (id: string) => send(`/models/${encodeURIComponent(id)}`, undefined, 'DELETE')
    expect((await remove(model)).status).toBe(400)
    for (const id of [tuned, merged_model, model]) expect((await remove(id)).status).toBe(200)
    expect(await ofModels()).toBeLessThanOrEqual(before)
    expect(readdirSync(join(server.home, 'cache', 'models'))).toEqual([])
  })

  test('a GGUF', async () => {
    const reply = await send(`/models/${base}/weights?format=gguf&dtype=q8_0`)
    const one = await imported([['Own-1B.Q8_0.gguf', Buffer.from(await reply.arrayBuffer())]])
    expect(one).toMatchObject({ status: 'succeeded', kind: 'gguf' })
    const model = one.imported_model
    expect(await answer(model)).toBe(await answer(base))
    const tuned = await tune(model)
    expect(await answer(tuned)).toContain('Tom')

    // Its own GGUF is signed as a whole, and is one for who reads on no further than its tensors.
    const own = await send(`/models/${encodeURIComponent(tuned)}/weights?format=gguf&dtype=f32`)
    const bytes = Buffer.from(await own.arrayBuffer())
    const path = join(server.home, 'own.gguf')
    writeFileSync(path, bytes)
    expect(await luthier('verify', path)).toContain('as they were signed')
    const again = await imported([['Own-again.gguf', bytes]])
    expect(again.status).toBe('succeeded')
    expect(await answer(again.imported_model)).toContain('Tom')
    bytes[bytes.length >> 1]! ^= 1
    writeFileSync(path, bytes)
    await expect(luthier('verify', path)).rejects.toThrow(/was changed|not the bytes|signed/)
  })

  test('ONNX answers in a plain runtime as the API does; GGUF of every kind', async () => {
    const prompt = 'Once upon a time'
    const { choices } = await ask('/completions', {
      model: base,
      prompt,
      max_tokens: 8,
      temperature: 0,
    })
    const folder = await unpacked(base, 'onnx')
    const { config, ...rest } = await openCheckpoint(stories.path)
    const tokenizer = await openTokenizer({ config, ...rest })
    const onnx = await InferenceSession.create(join(folder, 'model.onnx'))
    const past = [1, config.num_key_value_heads, 0, config.hidden_size / config.num_attention_heads]
    const ids = [...tokenizer.encode(prompt)]
    for (const from = ids.length; ids.length < from + 8; ) {
      const row = (of: (id: number, at: number) => number) =>
        new Tensor(
          'int64',
          BigInt64Array.from(ids, (id, at) => BigInt(of(id, at))),
          [1, ids.length],
        )
      const feeds = Object.fromEntries(
        onnx.inputNames.map((name) => [name, new Tensor('float32', new Float32Array(0), past)]),
      )
      const { logits } = await onnx.run({
        ...feeds,
        input_ids: row((id) => id),
        attention_mask: row(() => 1),
        position_ids: row((_, at) => at),
      })
      const last = [...(logits!.data as Float32Array).slice(-config.vocab_size)]
      ids.push(last.indexOf(Math.max(...last)))
    }
    expect(tokenizer.decode(ids).replace(/^<s>/, '').trim()).toBe(prompt + choices[0].text)
    expect(await luthier('verify', folder)).toContain('as they were signed')

    const path = join(server.home, 'kind.gguf')
    for (const [dtype, kind] of [
      ['f32', 'F32'],
      ['f16', 'F16'],
      ['bf16', 'BF16'],
      ['q8_0', 'Q8_0'],
      ['q4_0', 'Q4_0'],
      ['q4_1', 'Q4_1'],
      // Its rows are too short for Q4_K.
      ['q4_k', 'Q5_0'],
    ]) {
      const reply = await send(`/models/${base}/weights?format=gguf&dtype=${dtype}`)
      writeFileSync(path, Buffer.from(await reply.arrayBuffer()))
      const { tensors, metadata } = await readGguf(path)
      expect(tensors.get('blk.3.attn_q.weight')?.dtype, dtype).toBe(kind)
      expect(tensors.get('output_norm.weight')?.dtype, dtype).toBe('F32')
      expect(metadata.get('tokenizer.ggml.tokens')).toHaveLength(config.vocab_size)
    }
  })

  test('luthier pull takes an adapter to its base, and checks a folder before it is a base model', async () => {
    const folder = join(server.home, 'adapter')
    cpSync(fixturePath('adapters.rslora'), folder, { recursive: true })
    const said = await luthier('pull', `file:${folder}`, '--base', base, '--suffix', 'pulled')
    const [model] = /ft:stories260k:luthier:pulled:\w{8}/.exec(said) ?? []
    expect(await names()).toContain(model)
    expect(await answer(model!)).not.toBe('')
    const { statement } = await ask(`/models/${encodeURIComponent(model!)}/provenance`)
    expect(statement.imported.received[0].source).toBe(`file:${folder}`)

    const broken = join(server.home, 'broken')
    cpSync(stories.path, broken, { recursive: true })
    const { tensors } = await openCheckpoint(broken)
    const bad = await Promise.all(
      [...tensors.values()].map(async ({ name, dims, ...rest }) => {
        const data = await readTensor({ name, dims, ...rest })
        if (name.includes('layers.2') && name.includes('up_proj')) data[7] = Number.NaN
        return { name, dims, data }
      }),
    )
    writeFileSync(join(broken, 'model.safetensors'), writeSafetensors(bad))
    await expect(luthier('pull', `file:${broken}`)).rejects.toThrow(
      /model\.layers\.2\.mlp\.up_proj\.weight holds NaN, value 7/,
    )
    expect(existsSync(join(models, 'broken'))).toBe(false)
  })

  describe('is refused with a reason, and leaves nothing', () => {
    const good = () => filesOf(stories.path)
    const changed = (name: string, change: (bytes: Buffer) => Uint8Array): Named[] =>
      good().map(([n, bytes]) => [n, n === name ? change(Buffer.from(bytes)) : bytes])
    const config = (change: object) =>
      changed('config.json', (bytes) =>
        Buffer.from(JSON.stringify({ ...JSON.parse(bytes.toString()), ...change })),
      )
    const withType = (name: string, type: string) => {
      const header = Buffer.from(tarHeader(name, 0))
      header.write(type, 156)
      header.write('        ', 148)
      const sum = header.reduce((total, byte) => total + byte, 0)
      header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
      return header
    }
    /** One tensor of one number more. */
    const withTensor = (bytes: Uint8Array, name: string) => {
      const file = Buffer.from(bytes)
      const length = Number(file.readBigUInt64LE(0))
      const [header, data] = [file.toString('utf8', 8, 8 + length), file.subarray(8 + length)]
      const tensor = { dtype: 'F32', shape: [1], data_offsets: [data.length, data.length + 4] }
      const text = Buffer.from(JSON.stringify({ ...JSON.parse(header), [name]: tensor }))
      const size = Buffer.alloc(8)
      size.writeBigUInt64LE(BigInt(text.length))
      return Buffer.concat([size, text, data, Buffer.alloc(4)])
    }
    const lying = () => Buffer.concat([tarHeader('config.json', 5_000_000), Buffer.alloc(512)])
    const adapter = () => filesOf(fixturePath('adapters.rslora'))
    const tar = (bytes: Uint8Array): Named[] => [['m.tar', bytes]]

    test.each<[string, () => Named[], RegExp]>([
      ['a path with ..', () => tar(tarOf([['a/../../x.json', Buffer.from('x')]])), /points out of/],
      [
        'an absolute path',
        () => tar(tarOf([['/etc/config.json', Buffer.from('x')]])),
        /points out/,
      ],
      ['a link', () => tar(withType('model.safetensors', '2')), /no plain file/],
      ['a hard link', () => tar(withType('model.safetensors', '1')), /no plain file/],
      ['a device', () => tar(withType('model.safetensors', '3')), /no plain file/],
      ['a size that lies', () => tar(lying()), /claims 5000000 bytes, and 512 are left/],
      ['a cut archive', () => tar(tarOf(good()).subarray(0, 20_000)), /claims|ends in the middle/],
      ['no archive', () => tar(Buffer.alloc(2048, 7)), /no tar archive/],
      ['a file twice', () => tar(tarOf([...good(), good()[0]!])), /in it twice/],
      ['something compressed', () => [['m.tar.gz', Buffer.from('x')]], /compressed/],
      ['no model', () => [['notes.txt', Buffer.from('x')]], /neither adapter_config.json/],
      [
        'two models',
        () =>
          tar(
            tarOf(
              good().flatMap(([n, b]): Named[] => [
                [`a/${n}`, b],
                [`b/${n}`, b],
              ]),
            ),
          ),
        /several models: a, b/,
      ],
      [
        'a header that lies',
        () => changed('model.safetensors', (b) => b.subarray(0, b.length - 64)),
        /model.safetensors: tensor .* its data ends at byte/,
      ],
      ['a wrong shape', () => config({ intermediate_size: 170 }), /has shape \[.*\], expected \[/],
      [
        'a tensor that the family has not',
        () => changed('model.safetensors', (b) => withTensor(b, 'model.layers.0.mlp.up_proj.bias')),
        /up_proj.bias is not one that llama has/,
      ],
      [
        'more tokens than rows',
        () =>
          changed('tokenizer.json', (b) => {
            const words = JSON.parse(b.toString())
            words.added_tokens.push({ ...words.added_tokens[0], id: 512, content: '<more>' })
            return Buffer.from(JSON.stringify(words))
          }),
        /the tokenizer has 513 tokens, the weights only 512/,
      ],
      ['another family', () => config({ model_type: 'mamba' }), /"mamba" is not supported/],
      ['no config', () => good().filter(([n]) => n !== 'config.json'), /neither/],
      ['no tokenizer', () => good().filter(([n]) => n !== 'tokenizer.json'), /tokenizer.json is/],
      [
        'a template that is none',
        () => [...good(), ['chat_template.jinja', Buffer.from('{% if %}')]],
        /chat template cannot be parsed/,
      ],
      ['a GGUF that is none', () => [['m.gguf', Buffer.from('GGUF or not')]], /GGUF/],
      [
        'an adapter whose base nobody knows',
        () =>
          adapter().map(
            ([n, b]): Named =>
              n === 'adapter_config.json'
                ? [n, Buffer.from(b.toString().replace('"stories260k"', '"someone/else"'))]
                : [n, b],
          ),
        /The adapter is for ".*", which is not among the models here/,
      ],
      [
        'an adapter with no numbers in it',
        () =>
          adapter().map(([n, b]): Named => {
            if (!n.endsWith('.safetensors')) return [n, b]
            const bytes = Buffer.from(b)
            bytes.writeFloatLE(Number.POSITIVE_INFINITY, bytes.length - 4)
            return [n, bytes]
          }),
        /holds Infinity/,
      ],
      [
        'an adapter with a module that was trained whole',
        () =>
          adapter().map(([n, b]): Named => {
            if (n.endsWith('.safetensors'))
              return [n, withTensor(b, 'base_model.model.model.norm.weight')]
            if (n !== 'adapter_config.json') return [n, b]
            const words = { ...JSON.parse(Buffer.from(b).toString()), modules_to_save: ['norm'] }
            return [n, Buffer.from(JSON.stringify(words))]
          }),
        /model.norm.weight was trained whole \(modules_to_save\)/,
      ],
      [
        'an adapter of another kind',
        () =>
          adapter().map(
            ([n, b]): Named =>
              n === 'adapter_config.json'
                ? [n, Buffer.from(b.toString().replace('"LORA"', '"IA3"'))]
                : [n, b],
          ),
        /peft_type "IA3" is not supported/,
      ],
    ])('%s', async (what, files, why) => {
      const before = await names()
      const stored = await server.stored()
      const rest = /nobody knows/.test(what) || !/adapter/.test(what) ? {} : { base_model: base }
      const one = await imported(files(), rest)
      expect(one).toMatchObject({ status: 'failed', imported_model: null })
      expect(one.error.message).toMatch(why)
      expect(one.error.message).not.toContain(server.home)
      const { data } = await ask(`${IMPORTS}/${one.id}/events`)
      expect(data[0]).toMatchObject({ level: 'error', message: one.error.message })
      for (const { source } of one.files) await ask(`/files/${source}`, undefined, 'DELETE')
      expect(await names()).toEqual(before)
      expect(await server.stored()).toEqual(stored)
      expect(
        readdirSync(join(server.home, 'cache', 'models')).filter((name) => name.startsWith('.')),
      ).toEqual([])
    })

    test('files of another purpose, a file that is not there, a base that is not there', async () => {
      const rows = await upload('rows.jsonl', Buffer.from(ROW), 'fine-tune')
      for (const [body, param] of [
        [{ files: [rows] }, 'files.0'],
        [{ files: ['file-none'] }, 'id'],
        [{ files: [rows], base_model: 'none' }, 'base_model'],
        [{ files: [] }, 'files'],
      ] as const) {
        const reply = await send(IMPORTS, body)
        expect([400, 404]).toContain(reply.status)
        expect(((await reply.json()) as Reply).error.param).toBe(param)
      }
    })
  })
})
