// luthier export MODEL OUT: a model of the first project, or of --project, as files for other programs.

import { createWriteStream } from 'node:fs'
import { appendFile, mkdir, mkdtemp, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Command, Option } from 'commander'
import {
  EXPORT_DTYPES,
  EXPORT_FORMATS,
  type ExportDtype,
  type ExportEvent,
  type ExportFormat,
} from '../engine/export/request.ts'
import { exportEvents } from '../service/models/export.ts'
import { integer } from './arguments.ts'
import { withProvenance } from './with-provenance.ts'

interface Options {
  format: ExportFormat
  dtype: ExportDtype
  project?: string
  shardBytes?: number
}

export const exportCommand = () =>
  new Command('export')
    .description('write a model as files that other programs read')
    .argument('<model>', 'a base model, a tuned model or a checkpoint')
    .argument('<out>', 'the folder to be made, or the .gguf file')
    .addOption(new Option('--format <format>').choices(EXPORT_FORMATS).default('hf'))
    .addOption(new Option('--dtype <dtype>').choices(EXPORT_DTYPES).default('f32'))
    .option('--shard-bytes <n>', 'what one file of an hf folder may take', integer)
    .option('--project <id>', 'whose model it is, if not the first project')
    .action((model: string, out: string, options: Options) =>
      withProvenance(async ({ project_id, weights }) => {
        const { format, dtype, shardBytes: shard_bytes, project = project_id } = options
        const wanted = { format, dtype, ...(shard_bytes !== undefined && { shard_bytes }) }
        const goal = resolve(out)
        if (await stat(goal).catch(() => undefined)) throw new Error(`${out} is there already.`)
        const request = await weights.request(project, model, wanted)
        await mkdir(dirname(goal), { recursive: true })
        // Only what is whole ever has its name.
        const aside = await mkdtemp(join(dirname(goal), '.export-'))
        try {
          const files = await writeAll(exportEvents(request), aside)
          if (format === 'gguf') {
            const [file] = files
            await appendFile(
              join(aside, file!.path),
              (await weights.sealFile(project, model))(file!),
            )
            await rename(join(aside, file!.path), goal)
          } else {
            for (const { path, bytes } of await (await weights.seal(project, model))(files))
              await writeFile(join(aside, path), bytes)
            await rename(aside, goal)
          }
          console.log(`${model} is at ${goal}`)
        } finally {
          await rm(aside, { recursive: true, force: true })
        }
      }),
    )

/** Writes one file after the other; returns what they are. */
async function writeAll(events: AsyncGenerator<ExportEvent>, folder: string) {
  const files: { path: string; sha256: string; bytes: number }[] = []
  for (let next = await events.next(); !next.done; next = await events.next()) {
    if (next.value.type !== 'file') throw new Error('The export began in the midst of a file.')
    const { path, bytes } = next.value
    let sha256 = ''
    await pipeline(
      Readable.from(
        (async function* () {
          for (let piece = await events.next(); !piece.done; piece = await events.next()) {
            if (piece.value.type === 'piece') yield piece.value.bytes
            else if (piece.value.type === 'file_end') {
              sha256 = piece.value.sha256
              return
            }
          }
        })(),
        { objectMode: false },
      ),
      createWriteStream(join(folder, path), { flags: 'wx', flush: true }),
    )
    files.push({ path, sha256, bytes })
  }
  return files
}
