// The whole server over stories260k, listening, and the official client pointed at it.

import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import OpenAI from 'openai'
import { readConfig } from '../../src/config.ts'
import { startServer } from '../../src/server.ts'
import { testLog } from './log.ts'
import { specFetch } from './openai-spec.ts'
import { freshDatabase } from './postgres.ts'

export interface InferenceServer extends AsyncDisposable {
  readonly client: OpenAI
}

/** Shows the messages one after the other, and will have no tool among them. */
const TEMPLATE = `{%- for message in messages -%}
  {%- if message.role == 'tool' -%}{{ raise_exception('This model knows no tools.') }}{%- endif -%}
{%- endfor -%}
{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}`

/** Shows its tools, the calls and their results. */
const TOOLS_TEMPLATE = `{{ bos_token }}{% for tool in tools or [] %}{{ tool.function.name }} {% endfor %}
{%- for message in messages -%}
  {{ message.content }}
  {%- for call in message.tool_calls or [] %}<tool_call>{{ call.function.arguments | tojson }}</tool_call>{% endfor -%}
{%- endfor %}`

/**
 * Serves `stories260k` as it is; `stories-chat`, the same with a chat template; `stories-tools`, with one that shows tools; and `stories-bytes`, whose
 * tokens ` named` and ` Lily` are the bytes C3 and A9 instead. `folder` is the server's own.
 */
export async function startInferenceServer(
  stories260k: string,
  folder: string,
  settings: Record<string, string> = {},
): Promise<InferenceServer> {
  const models = join(folder, 'models')
  await mkdir(models)
  await symlink(stories260k, join(models, 'stories260k'))
  await cp(stories260k, join(models, 'stories-chat'), { recursive: true })
  await writeFile(join(models, 'stories-chat', 'chat_template.jinja'), TEMPLATE)
  await cp(stories260k, join(models, 'stories-tools'), { recursive: true })
  await writeFile(join(models, 'stories-tools', 'chat_template.jinja'), TOOLS_TEMPLATE)
  await cp(stories260k, join(models, 'stories-bytes'), { recursive: true })
  await swapTokens(join(models, 'stories-bytes', 'tokenizer.json'), [
    ['▁named', '<0xC3>'],
    ['▁Lily', '<0xA9>'],
  ])

  const database = await freshDatabase()
  const config = readConfig({
    PORT: '0',
    LUTHIER_HOME: folder,
    DATABASE_URL: database.url,
    LUTHIER_MODEL_ALIASES: 'gpt-4o-mini=stories-chat',
    ...settings,
  })
  const server = await startServer(config, testLog)
  return {
    client: new OpenAI({
      baseURL: `${server.url}/v1`,
      apiKey: server.apiKey,
      maxRetries: 0,
      fetch: specFetch(),
    }),
    [Symbol.asyncDispose]: async () => {
      await server.close()
      await database[Symbol.asyncDispose]()
    },
  }
}

async function swapTokens(file: string, pairs: readonly (readonly [string, string])[]) {
  const tokenizer = JSON.parse(await readFile(file, 'utf8')) as {
    model: { vocab: Record<string, number> }
  }
  const { vocab } = tokenizer.model
  for (const [a, b] of pairs) {
    const [idA, idB] = [vocab[a], vocab[b]]
    if (idA === undefined || idB === undefined) throw new Error(`${a} or ${b} is no token`)
    Object.assign(vocab, { [a]: idB, [b]: idA })
  }
  await writeFile(file, JSON.stringify(tokenizer))
}
