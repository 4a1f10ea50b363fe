// A backup as a file on disk: there when it is whole, readable for its owner alone.

import { createReadStream, createWriteStream, existsSync } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Stores } from '../storage/objects.ts'
import { backup } from './backup.ts'
import type { Tally } from './format.ts'
import { type RestoreTarget, restore } from './restore.ts'

const CHUNK = 256 * 1024

/** Writes a backup; a file that is there already is an error and stays as it is. */
export const backUpToFile = async (stores: Stores, file: string): Promise<Tally> => {
  if (existsSync(file)) throw new Error(`${file} exists already.`)
  const making = `${file}.${process.pid}.making`
  const tally: Tally = { rows: 0, objects: 0, bytes: 0 }
  try {
    await pipeline(
      Readable.from(backup(stores, new Date(), tally), { objectMode: false, highWaterMark: CHUNK }),
      createWriteStream(making, { flags: 'wx', mode: 0o600, flush: true }),
    )
    await rename(making, file)
    await using folder = await open(dirname(file), 'r')
    await folder.sync()
    return tally
  } finally {
    await rm(making, { force: true })
  }
}

export const restoreFromFile = (target: RestoreTarget, file: string): Promise<Tally> =>
  restore(target, createReadStream(file, { highWaterMark: CHUNK }))
