// What an export is asked for, and what its thread says.

import type { ExportSource } from './model.ts'

export const EXPORT_FORMATS = ['peft', 'hf', 'gguf', 'onnx'] as const
export type ExportFormat = (typeof EXPORT_FORMATS)[number]

export const EXPORT_DTYPES = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1', 'q4_k'] as const
export type ExportDtype = (typeof EXPORT_DTYPES)[number]

export interface ExportRequest {
  readonly source: ExportSource
  /** What the model is called in its own metadata. */
  readonly name: string
  readonly format: ExportFormat
  readonly dtype: ExportDtype
  /** What one file of weights may take. */
  readonly shard_bytes: number
  /** A signed statement that a single file carries in its metadata. */
  readonly statement?: string
}

/** Files one after the other: each opened, its bytes in pieces, then the hash of all of them. */
export type ExportEvent =
  | { readonly type: 'file'; readonly path: string; readonly bytes: number }
  | { readonly type: 'piece'; readonly bytes: Uint8Array }
  | { readonly type: 'file_end'; readonly path: string; readonly sha256: string }

/** Asks for the hashes of a model's own files. */
export interface HashRequest {
  /** A Hugging Face folder or a .gguf file. */
  readonly hash: string
}

export type HashEvent = { readonly type: 'hashed'; readonly path: string; readonly sha256: string }
