// The whole server over a tiny BERT, listening, and the official client pointed at it.

import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import OpenAI, { toFile } from 'openai'
import { readConfig } from '../../src/config.ts'
import { startServer } from '../../src/server.ts'
import { testLog } from './log.ts'
import { freshDatabase } from './postgres.ts'
import { writeTinyEncoder, writeTinyRoberta } from './tiny-encoder.ts'
import { writeTinyModel } from './tiny-model.ts'

export interface EncoderServer extends AsyncDisposable {
  readonly client: OpenAI
  /** Uploads the rows, runs a job to its end and gives it back, failed or succeeded. */
  tune(
    rows: readonly object[],
    method: Method,
    valid?: readonly object[],
    model?: string,
    luthier?: object,
  ): Promise<Job>
  /** Posts JSON, whatever the status. */
  post(path: string, body: object): Promise<{ status: number; body: Reply }>
  /** The files of an export, a byte a character. */
  weights(model: string, format: string): Promise<Map<string, string>>
}

export interface Method {
  type: string
  hyperparameters: object
}

type Job = OpenAI.FineTuning.FineTuningJob
// biome-ignore lint/suspicious/noExplicitAny: a test looks into what it expects
type Reply = any

/** Serves `tiny`, a BERT that came with a head, `headless`, the same without, and `decoder`, which is no encoder; `distilbert` and `roberta` are of other families. */
export async function startEncoderServer(folder: string): Promise<EncoderServer> {
  await mkdir(join(folder, 'models'))
  await writeTinyEncoder(join(folder, 'models', 'tiny'))
  await writeTinyEncoder(join(folder, 'models', 'headless'), { head: false })
  await writeTinyEncoder(join(folder, 'models', 'distilbert'), { family: 'distilbert' })
  await writeTinyRoberta(join(folder, 'models', 'roberta'))
  await writeTinyModel(join(folder, 'models', 'decoder'))
  const database = await freshDatabase()
  const config = readConfig({ PORT: '0', LUTHIER_HOME: folder, DATABASE_URL: database.url })
  const server = await startServer(config, testLog)
  const baseURL = `${server.url}/v1`
  const client = new OpenAI({ baseURL, apiKey: server.apiKey, maxRetries: 0 })

  const upload = async (rows: readonly object[]) => {
    const content = Buffer.from(rows.map((row) => JSON.stringify(row)).join('\n'))
    const file = await toFile(content, 'rows.jsonl')
    return (await client.files.create({ file, purpose: 'fine-tune' })).id
  }
  return {
    client,
    async tune(rows, { type, hyperparameters }, valid, model = 'tiny', luthier?: object) {
      const body = {
        model,
        training_file: await upload(rows),
        ...(valid && { validation_file: await upload(valid) }),
        seed: 1,
        ...(luthier && { luthier }),
        method: { type, [type]: { hyperparameters } },
      } as unknown as OpenAI.FineTuning.JobCreateParams
      const job = await client.fineTuning.jobs.create(body)
      for (let last = job; ; last = await client.fineTuning.jobs.retrieve(job.id)) {
        if (last.status === 'succeeded' || last.status === 'failed') return last
        await sleep(100)
      }
    },
    async post(path, body) {
      const reply = await fetch(`${baseURL}${path}`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${server.apiKey}`,
          'content-type': 'application/json',
        },
        body: JSON.stringify(body),
      })
      return { status: reply.status, body: await reply.json() }
    },
    async weights(model, format) {
      const reply = await fetch(
        `${baseURL}/models/${encodeURIComponent(model)}/weights?format=${format}`,
        { headers: { authorization: `Bearer ${server.apiKey}` } },
      )
      const tar = Buffer.from(await reply.arrayBuffer()).toString('latin1')
      const files = new Map<string, string>()
      for (let at = 0; at < tar.length && tar[at] !== '\0'; ) {
        const [name] = tar.slice(at, at + 100).split('\0')
        const bytes = Number.parseInt(tar.slice(at + 124, at + 136), 8)
        files.set(name!, tar.slice(at + 512, at + 512 + bytes))
        at += 512 + 512 * Math.ceil(bytes / 512)
      }
      return files
    },
    [Symbol.asyncDispose]: async () => {
      await server.close()
      await database[Symbol.asyncDispose]()
    },
  }
}
