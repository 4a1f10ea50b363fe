// The last resort of the quickstart: a model that is made here, of random weights and the words of the sample set.

import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { ChatMessage } from '../engine/infer/request.ts'
import { writeFreshLlama } from '../engine/models/fresh-llama.ts'
import { trainBpe } from '../engine/tokenizer/train-bpe.ts'

/** It knows nothing: whoever finds it among the models must not take it for one that was trained. */
export const SCRATCH = 'untrained-tiny-llama'

/** What the job trains it with: every weight, more often and faster than a model that knows a language. */
export const SCRATCH_HYPERPARAMETERS = {
  adapter: 'none',
  n_epochs: 10,
  batch_size: 8,
  learning_rate: 3e-3,
} as const

const BOS = '<|im_start|>'
const EOS = '<|im_end|>'
const CHAT_TEMPLATE = `{% for m in messages %}${BOS}{{ m['role'] + '\\n' + m['content'] }}${EOS}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}${BOS}{{ 'assistant\\n' }}{% endif %}`

/** Makes the model in the folder of base models, anew where it is there already, and says how many parameters it has. */
export async function makeScratchModel(folder: string, sample: string): Promise<number> {
  const lines = (await readFile(sample, 'utf8')).trimEnd().split('\n')
  const texts = lines.flatMap((line) => {
    const { messages } = JSON.parse(line) as { messages: ChatMessage[] }
    return messages.map(({ role, content }) => `${role}\n${content}`)
  })
  await mkdir(folder, { recursive: true })
  const aside = await mkdtemp(join(folder, '.pull-'))
  try {
    const parameters = await writeFreshLlama(join(aside, 'model'), {
      size: {
        hidden_size: 128,
        intermediate_size: 256,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 512,
      },
      tokenizer: trainBpe(texts, { vocab_size: 1024, special_tokens: [BOS, EOS] }),
      bos_token: BOS,
      eos_token: EOS,
      chat_template: CHAT_TEMPLATE,
      seed: 1,
    })
    await rm(join(folder, SCRATCH), { recursive: true, force: true })
    await rename(join(aside, 'model'), join(folder, SCRATCH))
    return parameters
  } finally {
    await rm(aside, { recursive: true, force: true })
  }
}
