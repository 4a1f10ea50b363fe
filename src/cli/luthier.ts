// The command line's table of contents: one file a command, and the one place that prints an error.

import { Command } from 'commander'
import { backupCommand, restoreCommand } from './backup.ts'
import { chatCommand } from './chat.ts'
import { devicesCommand } from './devices.ts'
import { exportCommand } from './export.ts'
import { keysCommand } from './keys.ts'
import { mergeCommand } from './merge.ts'
import { modelsCommand } from './models.ts'
import { projectsCommand } from './projects.ts'
import { pullCommand } from './pull.ts'
import { trainCommand } from './train.ts'
import { verifyCommand } from './verify.ts'

const program = new Command('luthier')
  .description('Trains, serves and owns fine-tuned language models on this machine.')
  .showHelpAfterError()
  .addCommand(pullCommand())
  .addCommand(modelsCommand())
  .addCommand(devicesCommand())
  .addCommand(trainCommand())
  .addCommand(mergeCommand())
  .addCommand(chatCommand())
  .addCommand(exportCommand())
  .addCommand(verifyCommand())
  .addCommand(keysCommand())
  .addCommand(projectsCommand())
  .addCommand(backupCommand())
  .addCommand(restoreCommand())

try {
  await program.parseAsync()
} catch (error) {
  console.error(`luthier: ${error instanceof Error ? error.message : error}`)
  if (process.env.DEBUG) console.error(error)
  process.exitCode = 1
}
