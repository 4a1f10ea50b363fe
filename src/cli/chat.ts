// luthier chat MODEL: a talk in the terminal, without a server.

import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { Command } from 'commander'
import { readConfig } from '../config.ts'
import type {
  ChatMessage,
  InferEvent,
  InferThreadRequest,
  Target,
} from '../engine/infer/request.ts'
import { spawn, type Thread } from '../engine/runtime/thread.ts'
import { locateBaseModel } from '../service/models/base-models.ts'
import { integer, number } from './arguments.ts'

interface Options {
  adapter?: string
  system?: string
  temperature: number
  maxTokens: number
  seed: number
}

const WORKER = new URL('../engine/infer/worker.ts', import.meta.url)

export const chatCommand = () =>
  new Command('chat')
    .description('talk to a model in the terminal, line by line')
    .argument('<model>', 'a pulled model, or the path of a model')
    .option('--adapter <folder>', 'a PEFT adapter folder over the model')
    .option('--system <text>', 'the system message')
    .option('--temperature <x>', '0 is greedy', number, 0)
    .option('--max-tokens <n>', 'of one answer', integer, 256)
    .option('--seed <n>', 'of sampling', integer, 42)
    .action(async (model: string, options: Options) => {
      const { home, models } = readConfig(process.env)
      const target: Target = {
        model: await locateBaseModel(models, model),
        cache: join(home, 'cache', 'weights'),
        ...(options.adapter !== undefined && {
          adapter: resolve(options.adapter, 'adapter_model.safetensors'),
        }),
      }
      await using thread = spawn<InferThreadRequest, InferEvent>(WORKER)
      await talk(thread, target, options)
    })

async function talk(
  thread: Thread<InferThreadRequest, InferEvent>,
  target: Target,
  { system, temperature, maxTokens, seed }: Options,
) {
  const messages: ChatMessage[] = system === undefined ? [] : [{ role: 'system', content: system }]
  const terminal = process.stdin.isTTY
  const lines = createInterface({ input: process.stdin, output: process.stdout, terminal })
  lines.setPrompt(terminal ? '> ' : '')
  lines.prompt()
  for await (const line of lines) {
    if (line.trim() === '') continue
    messages.push({ role: 'user', content: line })
    let answer = ''
    const answered = thread.run({
      type: 'generate',
      target,
      prompt: { messages },
      max_tokens: maxTokens,
      stop: [],
      n: 1,
      sampling: { temperature, top_p: 1, seed },
    })
    for await (const event of answered)
      if (event.type === 'delta') {
        answer += event.text
        process.stdout.write(event.text)
      }
    process.stdout.write('\n')
    messages.push({ role: 'assistant', content: answer })
    lines.prompt()
  }
}
