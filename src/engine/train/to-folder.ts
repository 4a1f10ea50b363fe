// Training without a service: a folder of rows in, a PEFT adapter folder or a whole model out. No database, no job.

import { access, copyFile, mkdir, rename, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { invalidRequest } from '../../errors.ts'
import type { Thread } from '../runtime/thread.ts'
import type { MethodName } from './methods/index.ts'
import type { FileReport, Hyperparameters, TrainEvent, TrainThreadRequest } from './request.ts'

export interface TrainFolderRequest {
  /** Holds `train.jsonl`, and `valid.jsonl` where there is one. */
  folder: string
  /** A Hugging Face folder or a .gguf file. */
  model: string
  /** Folder for converted weights. */
  cache: string
  /** The folder to write: PEFT's two files or, with all weights trained, a model as Hugging Face lays it out. */
  out: string
  method: MethodName
  hyperparameters: Hyperparameters
  seed: number
}

/** Checks the rows, trains, and writes the result at each epoch's end that is the best so far: without validation the last one. */
export async function* trainFolder(
  thread: Thread<TrainThreadRequest, TrainEvent>,
  { folder, model, cache, out, method, hyperparameters, seed }: TrainFolderRequest,
  signal?: AbortSignal,
): AsyncGenerator<TrainEvent, void, undefined> {
  const training = { path: resolve(folder, 'train.jsonl') }
  if (!(await exists(training.path))) throw invalidRequest(`There is no ${training.path}.`)
  const valid = { path: resolve(folder, 'valid.jsonl') }
  const data = {
    model: resolve(model),
    method,
    training,
    ...((await exists(valid.path)) && { validation: valid }),
  }

  for await (const event of thread.run({ type: 'inspect', ...data, hyperparameters }, signal)) {
    yield event
    if (event.type !== 'inspected') continue
    if (event.plan === undefined) {
      const wrong = [
        ...badRows('train.jsonl', event.training),
        ...badRows('valid.jsonl', event.validation),
      ]
      throw invalidRequest(wrong.join('\n'), { code: 'invalid_training_file' })
    }
    await mkdir(out, { recursive: true })
    const whole = event.plan.adapter === 'none'
    const prefix = whole ? '' : 'adapter_'
    if (whole) await copyTokenizer(data.model, out)
    const request = { type: 'train' as const, ...data, cache, plan: event.plan, seed }
    for await (const trained of thread.run(request, signal)) {
      if (trained.type === 'checkpoint' && trained.is_best) {
        await replace(join(out, `${prefix}config.json`), trained.adapter_config)
        await replace(join(out, `${prefix}model.safetensors`), trained.adapter)
      }
      yield trained
    }
  }
}

function badRows(file: string, report: FileReport | undefined): string[] {
  if (!report || report.error_count === 0) return []
  const rows = report.errors.map(
    ({ line, pointer, message }) =>
      `${file}, line ${line}${pointer && ` (${pointer})`}: ${message}`,
  )
  const more = report.error_count - rows.length
  return more > 0 ? [...rows, `${file}: ${more} more errors`] : rows
}

/** What a model's folder says of text; training changes nothing of it. */
const TOKENIZER_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'vocab.txt',
  'vocab.json',
  'merges.txt',
  'generation_config.json',
  'chat_template.jinja',
]

async function copyTokenizer(model: string, out: string) {
  for (const name of TOKENIZER_FILES)
    if (await exists(join(model, name))) await copyFile(join(model, name), join(out, name))
}

async function replace(path: string, content: Uint8Array | string) {
  await writeFile(`${path}.tmp`, content)
  await rename(`${path}.tmp`, path)
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  )
