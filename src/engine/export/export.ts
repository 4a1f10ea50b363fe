// The formats in which a model leaves: one line each. A format is a list of files whose bytes are made when asked for.

import { createReadStream, statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { invalidRequest } from '../../errors.ts'
import type { WrittenDtype } from '../weights/quantise.ts'
import type { ExportFile } from './file.ts'
import { type FolderDtype, folderFiles } from './folder.ts'
import { ggufFile } from './gguf.ts'
import { openExport } from './model.ts'
import { onnxFiles } from './onnx.ts'
import type { ExportDtype, ExportRequest } from './request.ts'

/** The files of an export; throws where the model has no such form. */
export async function exportFiles(request: ExportRequest): Promise<ExportFile[]> {
  const { source, name, format, dtype, shard_bytes } = request
  switch (format) {
    case 'peft':
      return adapterFiles(request)
    case 'hf':
      return folderFiles(await openExport(source), { dtype: folderDtype(dtype), shard_bytes })
    case 'gguf': {
      const stored = dtype.toUpperCase() as WrittenDtype
      return [
        await ggufFile(await openExport(source), {
          name,
          dtype: stored,
          statement: request.statement,
        }),
      ]
    }
    case 'onnx':
      return onnxFiles(await openExport(source), onnxDtype(dtype))
    default:
      return format satisfies never
  }
}

/** The two files of an adapter as they are kept. */
async function adapterFiles({ source: { tuned }, dtype }: ExportRequest): Promise<ExportFile[]> {
  const config = tuned && join(dirname(tuned), 'adapter_config.json')
  if (!tuned || !config || !('peft_type' in JSON.parse(await readFile(config, 'utf8'))))
    throw refuse('format', 'The model is no adapter: export it as hf.')
  if (dtype !== 'f32') throw refuse('dtype', 'An adapter is exported as f32, as it was trained.')
  const file = (path: string, from: string): ExportFile => ({
    path,
    bytes: statSync(from).size,
    chunks: () => createReadStream(from),
  })
  return [file('adapter_config.json', config), file('adapter_model.safetensors', tuned)]
}

function folderDtype(dtype: ExportDtype): FolderDtype {
  if (dtype === 'f32' || dtype === 'f16' || dtype === 'bf16')
    return dtype.toUpperCase() as FolderDtype
  throw refuse('dtype', `A Hugging Face folder is not written as ${dtype}: f32, f16 or bf16.`)
}

function onnxDtype(dtype: ExportDtype): 'F32' | 'F16' {
  if (dtype === 'f32' || dtype === 'f16') return dtype === 'f32' ? 'F32' : 'F16'
  throw refuse('dtype', `An ONNX graph is not written as ${dtype}: f32 or f16.`)
}

const refuse = (param: string, message: string) =>
  invalidRequest(message, { param, code: 'invalid_value' })
