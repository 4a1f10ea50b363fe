// luthier merge CONFIG OUT: the engine alone, without a server or a database.

import { existsSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { Command } from 'commander'
import { readConfig } from '../config.ts'
import { keyOf, type ModelName } from '../engine/merge/config.ts'
import type { ModelFiles } from '../engine/merge/models.ts'
import { namesIn, parseRequested, searchedIn } from '../engine/merge/requested.ts'
import { candidateText, runRequested } from '../engine/merge/run.ts'
import { readMergeText } from '../engine/merge/yaml.ts'
import { locateBaseModel } from '../service/models/base-models.ts'
import { integer } from './arguments.ts'
import { createProgress } from './progress.ts'

export const mergeCommand = () =>
  new Command('merge')
    .description(
      'merge models as a mergekit YAML says, or adapters, or extract one; run again after a stop, it goes on',
    )
    .argument('<config>', 'a YAML, or the same as JSON: see docs/merging.md')
    .argument('<out>', 'the folder to write')
    .option('--threads <n>', 'that merge at once', integer, availableParallelism())
    .action(async (file: string, out: string, { threads }: { threads: number }) => {
      const documents = readMergeText(await readFile(file, 'utf8'))
      if (documents.length !== 1)
        throw new Error(`${file}: expected one merge, found ${documents.length} documents`)
      const requested = parseRequested(documents[0])
      const { models: folder, home } = readConfig(process.env)
      const models: Record<string, ModelFiles> = {}
      for (const name of namesIn(requested))
        models[keyOf(name)] =
          requested.kind === 'adapters' && name !== requested.base_model
            ? { path: '', adapter: await locateAdapter(name.model) }
            : await locate(folder, name)
      const progress = createProgress(process.stderr)
      let note: string | undefined
      const said = searchedIn(requested)?.search
      if (said && requested.kind === 'adapters' && !requested.base_model)
        throw new Error('A search needs base_model: the model that the adapters are of.')
      const searched = said?.validation_file
      if (said && searched === undefined)
        throw new Error('An eval needs a server: search by a validation_file here.')
      const search = searched !== undefined && {
        rows: resolve(dirname(file), searched),
        cache: join(home, 'cache', 'weights'),
      }
      const request = { models, out: resolve(out), threads, ...(search && { search }) }
      for await (const event of runRequested(requested, request))
        if (event.type === 'planned') {
          const rest = event.done > 0 ? `, ${event.done} of them done before` : ''
          console.log(
            `${event.tensors} ${requested.kind === 'models' ? 'tensors' : 'modules'}, ${(event.bytes / 1e6).toFixed(1)} MB${rest}`,
          )
        } else if (event.type === 'tensor')
          progress.show(event.done / event.tensors, `${event.done}/${event.tensors} ${event.name}`)
        else if (event.type === 'candidate') console.log(candidateText(event))
        else if (event.type === 'merged') note = event.note
      progress.end()
      if (note !== undefined) console.log(`${note}.`)
      console.log(`The ${requested.kind === 'models' ? 'model' : 'adapter'} is in ${out}`)
    })

/** Pulled models by name, or paths of this machine; an adapter is the folder or the file that PEFT wrote. */
async function locate(folder: string, { model, adapter }: ModelName): Promise<ModelFiles> {
  const path = await locateBaseModel(folder, model)
  return adapter === undefined ? { path } : { path, adapter: await locateAdapter(adapter) }
}

async function locateAdapter(adapter: string): Promise<string> {
  const given = resolve(adapter)
  const isFolder = existsSync(given) && (await stat(given)).isDirectory()
  const file = isFolder ? join(given, 'adapter_model.safetensors') : given
  if (!existsSync(file)) throw new Error(`${adapter}: there is no adapter_model.safetensors`)
  return file
}
