// The command line's table of contents: one file a command, and the one place that prints an error.

import { Command } from 'commander'

/** In the order that the help has them. Each is loaded when it is asked for: the engine takes a second. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  pull: async () => (await import('./pull.ts')).pullCommand(),
  models: async () => (await import('./models.ts')).modelsCommand(),
  devices: async () => (await import('./devices.ts')).devicesCommand(),
  train: async () => (await import('./train.ts')).trainCommand(),
  merge: async () => (await import('./merge.ts')).mergeCommand(),
  chat: async () => (await import('./chat.ts')).chatCommand(),
  export: async () => (await import('./export.ts')).exportCommand(),
  verify: async () => (await import('./verify.ts')).verifyCommand(),
  keys: async () => (await import('./keys.ts')).keysCommand(),
  projects: async () => (await import('./projects.ts')).projectsCommand(),
  backup: async () => (await import('./backup.ts')).backupCommand(),
  restore: async () => (await import('./backup.ts')).restoreCommand(),
}

const program = new Command('luthier')
  .description('Trains, serves and owns fine-tuned language models on this machine.')
  .showHelpAfterError()
const asked = Object.entries(COMMANDS).filter(([name]) => name === process.argv[2])
for (const [, load] of asked.length > 0 ? asked : Object.entries(COMMANDS))
  program.addCommand(await load())

try {
  await program.parseAsync()
} catch (error) {
  console.error(`luthier: ${error instanceof Error ? error.message : error}`)
  if (process.env.DEBUG) console.error(error)
  process.exitCode = 1
}
