// luthier backup FILE and luthier restore FILE: all state in one file, and back.

import { Command } from 'commander'
import { readConfig } from '../config.ts'
import { createLog } from '../log.ts'
import { backUpToFile, restoreFromFile } from '../service/backup/file.ts'
import { openDatabase } from '../service/db/database.ts'
import { openStore } from '../service/storage/open.ts'
import { megabytes } from './progress.ts'

export const backupCommand = () =>
  new Command('backup')
    .description('write database and objects to one file; a server may run meanwhile')
    .argument('<file>', 'to be made; an existing one is not touched')
    .action(async (file: string) => {
      const config = readConfig(process.env)
      await using database = await openDatabase(config, createLog('warn', 2), { migrate: false })
      const store = await openStore(config)
      const { rows, objects, bytes } = await backUpToFile({ db: database.db, store }, file)
      console.log(`${file}: ${rows} rows, ${objects} objects, ${megabytes(bytes)}`)
    })

export const restoreCommand = () =>
  new Command('restore')
    .description('read a backup into an empty LUTHIER_HOME or database')
    .argument('<file>', 'that `luthier backup` wrote')
    .action(async (file: string) => {
      const config = readConfig(process.env)
      const log = createLog('warn', 2)
      await using database = await openDatabase(config, log, { migrate: false })
      const store = await openStore(config)
      const { rows, objects, bytes } = await restoreFromFile({ database, store, log }, file)
      console.log(
        `${rows} rows, ${objects} objects, ${megabytes(bytes)} are back. Keys are valid as before; base models are not part of a backup.`,
      )
    })
