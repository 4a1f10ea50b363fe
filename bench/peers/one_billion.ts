// A llama of a billion parameters beside PEFT: LoRA steps of 1×512 in int8 and in bf16, speed and peak memory.
//
//   npx tsx bench/peers/one_billion.ts TOKENIZER FOLDER [--python PYTHON] [--rounds 3] [--sides int8-blocks,torch-bf16] [--keep]
//
// TOKENIZER is a Hugging Face folder of which only the tokenizer is taken. The model is made in FOLDER, with the shape of
// Llama 3.2 1B but for the vocabulary, and random weights in bfloat16: 2.1 GB, and 6 GB more for what we convert them to.
// All of it is deleted afterwards unless --keep is given. How fast a step is does not depend on what the weights are.

import { execFileSync } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { normal } from '../../src/engine/random.ts'
import { elements } from '../../src/engine/tensor.ts'
import { parseModelConfig, requiredTensors } from '../../src/engine/weights/model-config.ts'
import { layoutSafetensors } from '../../src/engine/weights/safetensors.ts'

const SHAPE = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 16,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  head_dim: 64,
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-5,
  rope_theta: 500_000,
  hidden_act: 'silu',
  tie_word_embeddings: true,
  dtype: 'bfloat16',
  torch_dtype: 'bfloat16',
}

/** Random numbers that are drawn; a tensor takes them from a place of its own on, again and again. */
const DRAWN = 1 << 20
const DEVIATION = 0.02

/** The upper halves of float32: cut, not rounded, which random weights bear. */
const toBfloat16 = (x: Float32Array) => new Uint16Array(x.buffer).filter((_, i) => i % 2 === 1)

async function makeModel(tokenizer: string, folder: string): Promise<number> {
  await mkdir(folder, { recursive: true })
  for (const name of ['tokenizer.json', 'tokenizer_config.json'])
    await copyFile(join(tokenizer, name), join(folder, name))
  const { vocab_size, bos_token_id, eos_token_id } = JSON.parse(
    await readFile(join(tokenizer, 'config.json'), 'utf8'),
  )
  const json = { ...SHAPE, vocab_size, bos_token_id, eos_token_id }
  await writeFile(join(folder, 'config.json'), JSON.stringify(json, null, 2))
  const shapes = [...requiredTensors(parseModelConfig(json, 'config.json'))]
  const tensors = shapes.map(([name, dims]) => ({ name, dims, dtype: 'BF16' as const }))
  const drawn = toBfloat16(
    Float32Array.from({ length: DRAWN }, (_, i) => DEVIATION * normal(0, 0, i)),
  )
  const ones = toBfloat16(new Float32Array(8192).fill(1))
  const { header } = layoutSafetensors(tensors, { format: 'pt' }, 2)
  const bytes = (x: Uint16Array) => new Uint8Array(x.buffer, x.byteOffset, x.byteLength)
  await pipeline(
    function* () {
      yield header
      for (const [i, { dims }] of tensors.entries()) {
        let left = elements(dims)
        // Norms are vectors of ones.
        if (dims.length === 1) yield bytes(ones.subarray(0, left))
        else
          for (let at = (i * 7919) % (DRAWN / 2); left > 0; at = 0) {
            const part = drawn.subarray(at, Math.min(DRAWN, at + left))
            left -= part.length
            yield bytes(part)
          }
      }
    },
    createWriteStream(join(folder, 'model.safetensors')),
  )
  return tensors.reduce((sum, { dims }) => sum + elements(dims), 0)
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string', default: 'python3' },
    rounds: { type: 'string', default: '3' },
    sides: { type: 'string', default: 'int8-blocks,torch-bf16' },
    keep: { type: 'boolean', default: false },
  },
})
const [tokenizer, folder] = positionals.map((path) => resolve(path))
if (!tokenizer || !folder) throw new Error('see the head of this file')
const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))
const [model, cache] = [join(folder, 'model'), join(folder, 'cache')]
try {
  const parameters = await makeModel(tokenizer, model)
  console.log(`${(parameters / 1e6).toFixed(0)} million parameters`)
  // The first run converts the weights, and says what that takes at its peak.
  const args = ['--import', 'tsx', here('./training_luthier.ts'), model, cache]
  const told = execFileSync(process.execPath, [...args, 'int8', 'blocks', '1', '512', '1'], {
    input: '1\n',
    encoding: 'utf8',
  })
  const [, peak] = told.trim().split('\n').at(-1)!.split(' ')
  console.log(`a first process, which converts the weights: ${Number(peak).toFixed(0)} MB`)
  const compared = [here('./training.ts'), model, cache, '--python', values.python]
  const options = ['--rounds', values.rounds, '--shapes', '1x512', '--sides', values.sides]
  execFileSync(process.execPath, ['--import', 'tsx', ...compared, ...options], { stdio: 'inherit' })
} finally {
  if (!values.keep) await rm(folder, { recursive: true, force: true })
}
