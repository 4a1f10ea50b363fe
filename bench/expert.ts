// All 77 intents of banking77 before and after tuning, through the server's own API: jobs, evals and one comparison.
//
//     npx tsx bench/expert.ts --model MODEL --data train.csv [--method supervised|classification]
//         [--per-intent N] [--held-out N] [--epochs N] [--seed 1] [--examples N]
//
// A decoder is tuned by LoRA on chats that do not list the intents. Its base is asked with a prompt that does, without
// and with examples (as many as fit; --examples: so many). An encoder gets a head for labels; its base has none, so
// the label is that whose name (zero-shot), or whose mean of --examples texts (few-shot), has the nearest vector.
// Every row is answered at temperature 0 and right when the answer is the intent's name.

import { basename } from 'node:path'
import { parseArgs } from 'node:util'
import { deal, type Question, readQuestions } from './banking77.ts'
import { type Answer, type BenchServer, startServer } from './server.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    data: { type: 'string' },
    method: { type: 'string', default: 'supervised' },
    'per-intent': { type: 'string', default: '12' },
    'held-out': { type: 'string', default: '4' },
    epochs: { type: 'string', default: 'auto' },
    seed: { type: 'string', default: '1' },
    examples: { type: 'string' },
  },
})
const { model, data, method } = values
if (!model || !data) throw new Error('usage: expert.ts --model MODEL --data CSV')
const seed = Number(values.seed)
const base = basename(model, '.gguf')

const questions = (await readQuestions(data)).map(({ text, label }) => ({
  text,
  label: label.replaceAll('_', ' '),
}))
const intents = [...new Set(questions.map(({ label }) => label))].sort()
const [heldOut, training] = deal(
  questions,
  intents,
  seed,
  Number(values['held-out']),
  Number(values['per-intent']),
) as [Question[], Question[]]

const SHORT = "Name the intent of the bank customer's message."
const LONG = `${SHORT} It is one of: ${intents.join(', ')}. Answer with the name alone.`

await using server = await startServer(model)
const timed = async <T>(what: string, body: () => Promise<T>): Promise<T> => {
  const began = performance.now()
  const result = await body()
  console.log(`${what}: ${((performance.now() - began) / 1000).toFixed(0)} s`)
  return result
}

const { id: eval_id } = await server.post('/evals', {
  name: 'banking77',
  data_source_config: {
    type: 'custom',
    item_schema: { type: 'object', required: ['text', 'label'] },
    include_sample_schema: true,
  },
  testing_criteria: [
    {
      type: 'string_check',
      name: 'exact',
      input: '{{sample.output_text}}',
      reference: '{{item.label}}',
      operation: 'eq',
    },
  ],
})
const runs = method === 'supervised' ? await decoder(server) : await encoder(server)
const comparison = await server.post(`/evals/${eval_id}/comparisons`, { runs, groups: ['label'] })
const { report, error } = await server.until(
  `/evals/${eval_id}/comparisons/${comparison.id}`,
  ({ status }) => status !== 'in_progress',
)
if (error) throw new Error(error.message)
console.log(
  `${base}, ${method}: ${training.length} training rows of ${intents.length} intents, ${heldOut.length} held out, seed ${seed}`,
)
for (const { label, examples, prompt_tokens } of report.results)
  if (examples > 0)
    console.log(`${label}: ${examples} examples, at most ${prompt_tokens} prompt tokens`)
console.log(report.text)

/** Three runs, one after the other. */
async function decoder(on: BenchServer) {
  const rows = training.map(({ text, label }) => ({
    messages: [
      { role: 'system', content: SHORT },
      { role: 'user', content: text },
      { role: 'assistant', content: label },
    ],
  }))
  const file_id = await on.upload(rows, 'fine-tune')
  const items = await on.upload(
    heldOut.map((item) => ({ item })),
    'evals',
  )
  const ask = (name: string, of: string, system: string, luthier?: object) =>
    timed(name, async () => {
      const { id } = await on.post(`/evals/${eval_id}/runs`, {
        name,
        ...(luthier && { luthier }),
        data_source: {
          type: 'completions',
          model: of,
          source: { type: 'file_id', id: items },
          input_messages: {
            type: 'template',
            template: [
              { role: 'system', content: system },
              { role: 'user', content: '{{item.text}}' },
            ],
          },
          sampling_params: { temperature: 0, max_completion_tokens: 16 },
        },
      })
      return ended(on, id, name)
    })
  const examples = values.examples === undefined ? 'auto' : Number(values.examples)
  return [
    await ask('zero-shot', base, LONG),
    await ask('few-shot', base, LONG, { few_shot: { file_id, examples } }),
    await ask('tuned', await tune(on, file_id), SHORT),
  ]
}

async function encoder(on: BenchServer) {
  const file_id = await on.upload(training, 'fine-tune')
  const vectorsOf = async (texts: readonly string[]): Promise<number[][]> => {
    const found: number[][] = []
    for (let from = 0; from < texts.length; from += 256) {
      const input = texts.slice(from, from + 256)
      const { data } = await on.post('/embeddings', { model: base, input })
      found.push(...data.map(({ embedding }: { embedding: number[] }) => embedding))
    }
    return found
  }
  const asked = await vectorsOf(heldOut.map(({ text }) => text))
  const nearest = (centres: readonly number[][]) =>
    asked.map((vector) => {
      const scores = centres.map((centre) => cosine(vector, centre))
      return intents[scores.indexOf(Math.max(...scores))]!
    })
  const record = async (name: string, answers: readonly string[]) => {
    const content = heldOut.map((item, i) => ({ item, sample: { output_text: answers[i] } }))
    const { id } = await on.post(`/evals/${eval_id}/runs`, {
      name,
      data_source: { type: 'jsonl', source: { type: 'file_content', content } },
    })
    return ended(on, id, name)
  }
  const count = Number(values.examples ?? '8')
  const shown = intents.map((intent) =>
    training.filter(({ label }) => label === intent).slice(0, count),
  )
  const vectors = await vectorsOf(shown.flat().map(({ text }) => text))
  const centres = shown.map((own) => mean(own.map(() => vectors.shift()!)))
  const named = await record('zero-shot (names)', nearest(await vectorsOf(intents)))
  const few = await record(`few-shot (means of ${count})`, nearest(centres))
  const tuned = await tune(on, file_id)
  const answers: string[] = []
  for (let from = 0; from < heldOut.length; from += 256) {
    const input = heldOut.slice(from, from + 256).map(({ text }) => text)
    const { data } = await on.post('/classifications', { model: tuned, input })
    answers.push(...data.map(({ label }: { label: string }) => label))
  }
  return [named, few, await record('tuned', answers)]
}

async function ended(on: BenchServer, id: string, label: string) {
  const run: Answer = await on.until(
    `/evals/${eval_id}/runs/${id}`,
    ({ status }) => !['queued', 'in_progress'].includes(status),
  )
  if (run.status !== 'completed') throw new Error(`${label}: ${run.error?.message ?? run.status}`)
  return { run_id: id, label }
}

async function tune(on: BenchServer, training_file: string): Promise<string> {
  return timed('tuning', async () => {
    const n_epochs = values.epochs === 'auto' ? 'auto' : Number(values.epochs)
    const { id } = await on.post('/fine_tuning/jobs', {
      model: base,
      training_file,
      seed,
      method: { type: method, [method]: { hyperparameters: { n_epochs } } },
    })
    const job: Answer = await on.until(`/fine_tuning/jobs/${id}`, ({ status }) =>
      ['succeeded', 'failed', 'cancelled'].includes(status),
    )
    if (job.status !== 'succeeded') throw new Error(job.error?.message ?? job.status)
    const { n_epochs: epochs, batch_size } = job.hyperparameters
    console.log(`${epochs} epochs, batches of ${batch_size}, ${job.trained_tokens} trained tokens`)
    return job.fine_tuned_model
  })
}

function mean(vectors: readonly number[][]): number[] {
  return vectors[0]!.map((_, k) => vectors.reduce((sum, one) => sum + one[k]!, 0) / vectors.length)
}

function cosine(a: readonly number[], b: readonly number[]): number {
  let [dot, aa, bb] = [0, 0, 0]
  for (const [i, x] of a.entries()) {
    dot += x * b[i]!
    aa += x * x
    bb += b[i]! * b[i]!
  }
  return dot / Math.sqrt(aa * bb)
}
