// A model for generic runtimes: model.onnx, its weights beside it in model.onnx.data, config and tokenizer.

import { emitOne, external, type Value } from '../graph/graph.ts'
import { EXTERNAL_ROOT } from '../graph/onnx.ts'
import { classifierHead } from '../models/encoder-heads.ts'
import { elements } from '../tensor.ts'
import type { MappedTensor, MappedWeights } from '../weights/checkpoint.ts'
import { bytesOf } from '../weights/quantise.ts'
import type { EncoderUse } from '../weights/tuned-encoder.ts'
import type { ExportFile } from './file.ts'
import { textFiles } from './folder.ts'
import type { ExportModel } from './model.ts'
import { decoderOnnx, encoderOnnx, type Read } from './onnx-graph.ts'
import { pieces } from './tensor-bytes.ts'

const DATA = 'model.onnx.data'
/** Readers map pages. */
const ALIGNMENT = 4096

/** Computes in float32 always; `F16` halves the file. */
export async function onnxFiles(model: ExportModel, dtype: 'F32' | 'F16'): Promise<ExportFile[]> {
  const { tensors, size } = layout(model, dtype)
  const mapped: MappedWeights = { id: model.base.id, config: model.config, tensors }
  const read: Map<string, Value> = new Map()
  if (dtype === 'F16')
    for (const [name, tensor] of tensors) {
      const stored = external(name, { dtype: 'float16', dims: tensor.dims }, tensor)
      const to = { dtype: 'float32' as const, dims: tensor.dims }
      read.set(name, emitOne('Cast', [stored], to, { attributes: { to: 1 } }))
    }
  const graph = encode(model, mapped, read)
  const graphFile = { path: 'model.onnx', bytes: graph.length, chunks: () => [graph] }
  const data: ExportFile = {
    path: DATA,
    bytes: size,
    async *chunks() {
      let at = 0
      for (const tensor of model.tensors) {
        const { offset, bytes } = tensors.get(tensor.name)!
        if (offset > at) yield new Uint8Array(offset - at)
        yield* pieces(dtype, await tensor.read())
        at = offset + bytes
      }
    },
  }
  return [...(await textFiles(model, 'F32')), graphFile, data]
}

function encode(model: ExportModel, mapped: MappedWeights, read: Read): Uint8Array {
  if (!model.config.encoder) return decoderOnnx(mapped, read)
  return encoderOnnx(mapped, model.use ?? useOf(mapped), read)
}

/** A base answers with the head that it came with, else with vectors. */
function useOf({ config, tensors }: MappedWeights): EncoderUse {
  const head = config.encoder?.head
  const fresh = head && classifierHead(config, head.task).tensors(config, head.labels.length).fresh
  const whole = fresh && [...fresh.keys()].every((name) => tensors.has(name))
  return head && whole ? { method: 'classification', ...head } : { method: 'embedding' }
}

function layout({ tensors }: ExportModel, dtype: 'F32' | 'F16') {
  const placed = new Map<string, MappedTensor>()
  let size = 0
  for (const { name, dims } of tensors) {
    const offset = Math.ceil(size / ALIGNMENT) * ALIGNMENT
    const bytes = bytesOf(dtype, elements(dims))
    // As the graph names it: a file beside itself.
    placed.set(name, { name, dims, file: `${EXTERNAL_ROOT}${DATA}`, offset, bytes })
    size = offset + bytes
  }
  return { tensors: placed, size }
}
