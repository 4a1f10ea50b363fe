// The weights of a project's models as downloads: which files of this machine they are, and how they are sealed.

import { createHash } from 'node:crypto'
import type { ExportDtype, ExportFormat, ExportRequest } from '../../engine/export/request.ts'
import { modelCard } from '../provenance/card.ts'
import type { Provenance } from '../provenance/provenance.ts'
import { type Manifest, type SealedFile, STATEMENT_FILE, trailerOf } from '../provenance/verify.ts'
import { exportEvents, type Seal, tarOf } from './export.ts'
import type { ResolvedModel } from './model.ts'
import type { ModelRegistry } from './registry.ts'

const SHARD_BYTES = 5_000_000_000

export interface WantedWeights {
  format: ExportFormat
  dtype: ExportDtype
  shard_bytes?: number
}

export interface Download {
  filename: string
  bytes: AsyncIterable<Uint8Array>
}

export interface ModelWeights {
  request(project_id: string, model: string, wanted: WantedWeights): Promise<ExportRequest>
  seal(project_id: string, model: string): Promise<Seal>
  /** What a single file ends with: the statement and the hash of all before it, signed. */
  sealFile(project_id: string, model: string): Promise<(file: SealedFile) => Uint8Array>
  /** A tar archive, or the bare file of a GGUF. Nothing is sent before all files are opened and fit. */
  download(project_id: string, model: string, wanted: WantedWeights): Promise<Download>
}

export interface ModelWeightsDeps {
  models: Pick<ModelRegistry, 'resolve'>
  adapterFile: (model: ResolvedModel) => Promise<string>
  provenance: Provenance
}

export function createModelWeights({
  models,
  adapterFile,
  provenance,
}: ModelWeightsDeps): ModelWeights {
  const weights: ModelWeights = {
    async request(project_id, model, { format, dtype, shard_bytes = SHARD_BYTES }) {
      const resolved = await models.resolve(project_id, model)
      const source = {
        base: resolved.base_path,
        ...(resolved.adapter && { tuned: await adapterFile(resolved) }),
      }
      const statement =
        format === 'gguf'
          ? JSON.stringify(await provenance.statement(project_id, model))
          : undefined
      const name = fileName(model)
      return {
        source,
        name,
        format,
        dtype,
        shard_bytes,
        ...(statement !== undefined && { statement }),
      }
    },

    async seal(project_id, model) {
      const { statement } = await provenance.statement(project_id, model)
      const key = await provenance.key()
      return async (files) => {
        const card = Buffer.from(modelCard(statement))
        const sha256 = createHash('sha256').update(card).digest('hex')
        const all = [...files, { path: 'README.md', sha256, bytes: card.length }]
        const sealed = key.seal<Manifest>({ model: statement, files: all })
        return [
          { path: 'README.md', bytes: card },
          { path: STATEMENT_FILE, bytes: Buffer.from(`${JSON.stringify(sealed, null, 2)}\n`) },
        ]
      }
    },

    async sealFile(project_id, model) {
      const { statement } = await provenance.statement(project_id, model)
      const key = await provenance.key()
      return (file) => trailerOf(key.seal<Manifest>({ model: statement, files: [file] }))
    },

    async download(project_id, model, wanted) {
      const request = await weights.request(project_id, model, wanted)
      const { name, format } = request
      const events = exportEvents(request)
      // The first file is asked for here, so that what cannot be made is an error and no broken download.
      const first = await events.next()
      async function* all() {
        try {
          if (!first.done) yield first.value
          yield* events
        } finally {
          await events.return()
        }
      }
      if (format !== 'gguf') {
        const seal = await weights.seal(project_id, model)
        return { filename: `${name}.tar`, bytes: tarOf(all(), seal) }
      }
      const seal = await weights.sealFile(project_id, model)
      async function* bare() {
        let bytes = 0
        for await (const event of all())
          if (event.type === 'piece') {
            bytes += event.bytes.length
            yield event.bytes
          } else if (event.type === 'file_end') {
            const { path, sha256 } = event
            yield seal({ path, sha256, bytes })
          }
      }
      return { filename: `${name}.gguf`, bytes: bare() }
    },
  }
  return weights
}

/** A model's name as a file's. */
export const fileName = (model: string): string =>
  model.replace(/[^\p{L}\p{N}._-]+/gu, '-').replace(/^[.-]+/, '') || 'model'
