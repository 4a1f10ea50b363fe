// Who runs on a data folder now: reads postmaster.pid and /proc, clears what the dead left, counts users.

import { createHash } from 'node:crypto'
import { lstat, mkdir, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../../log.ts'
import type { Runner } from './postgres-binaries.ts'

const WAIT_MS = 30_000

export interface Postmaster {
  readonly pid: number
  readonly socketFolder: string
}

/** The live server on this data folder, or none; then nothing that would hinder a start is left. */
export const findPostmaster = async (
  data: string,
  log: Logger,
): Promise<Postmaster | undefined> => {
  let lock: Lock | undefined
  for (let waited = 0; waited <= WAIT_MS; waited += 50) {
    lock = await readLock(data)
    const isLive = lock !== undefined && (await isPostmasterOf(lock.pid, data))
    if (lock?.socketFolder && isLive) return { pid: lock.pid, socketFolder: lock.socketFolder }
    // A server that is just starting has not written all yet; the rest of a killed one is just ending.
    if (!isLive && (await processesIn(data)).length === 0) {
      if (lock) await clearLocks(data, lock, log)
      return undefined
    }
    await sleep(50)
  }
  throw new Error(`Processes of Postgres work in ${data}, but no server answers for them.`)
}

interface Lock {
  readonly pid: number
  readonly socketFolder: string | undefined
}

const readLock = async (data: string): Promise<Lock | undefined> => {
  const text = await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => undefined)
  if (text === undefined) return undefined
  const lines = text.split('\n')
  return { pid: Number(lines[0]), socketFolder: lines[4]?.trim() || undefined }
}

/** By its arguments (or its working folder): the number alone may belong to another program by now. */
const isPostmasterOf = async (pid: number, data: string): Promise<boolean> => {
  if (!Number.isInteger(pid) || !(await isRunning(pid))) return false
  const args = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  if (args.split('\0').includes(data)) return true
  return (await readlink(`/proc/${pid}/cwd`).catch(() => undefined)) === data
}

/** Whether the process lives; a zombie, whose parent never reaps it, does not. */
export const isRunning = async (pid: number): Promise<boolean> => {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  if (text === undefined) return false
  const state = text.slice(text.lastIndexOf(')') + 2)[0]
  return state !== 'Z' && state !== 'X'
}

/**
 * Postgres itself removes the locks of a process that is gone, and refuses where the number is now a zombie's
 * or another program's: those we remove.
 */
const clearLocks = async (data: string, lock: Lock, log: Logger): Promise<void> => {
  log.warn({ pid: lock.pid }, 'embedded Postgres was not stopped cleanly; it recovers now')
  const isGone = (await startTime(lock.pid)) === ''
  if (isGone) return
  await rm(join(data, 'postmaster.pid'), { force: true })
  if (lock.socketFolder)
    for (const name of ['.s.PGSQL.5432', '.s.PGSQL.5432.lock'])
      await rm(join(lock.socketFolder, name), { force: true })
}

const processesIn = async (data: string): Promise<number[]> => {
  const found: number[] = []
  for (const name of await readdir('/proc')) {
    const pid = Number(name)
    if (!Number.isInteger(pid) || pid === process.pid) continue
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => undefined)
    if (cwd === data && (await isRunning(pid))) found.push(pid)
  }
  return found
}

/** A socket's path ends at 107 bytes: where the state folder is deep, a short folder of ours under tmp. */
export const chooseSocketFolder = async (state: string, runner: Runner): Promise<string> => {
  const near = join(state, 'run')
  const far = join(
    tmpdir(),
    `luthier-${createHash('sha256').update(state).digest('hex').slice(0, 12)}`,
  )
  const folder = Buffer.byteLength(near) <= 90 ? near : far
  await mkdir(folder, { mode: 0o700, recursive: true })
  const found = await lstat(folder)
  const isOurs = found.isDirectory() && [process.getuid?.(), runner.uid].includes(found.uid)
  if (!isOurs)
    throw new Error(`${folder} belongs to somebody else; it is needed for the database's socket.`)
  await runner.own(folder)
  return folder
}

export interface Users {
  /** Takes this process off the list and tells how many live ones remain. */
  leave(): Promise<number>
}

/** Puts this process on the list of those who use the server; the dead do not count. */
export const joinUsers = async (state: string): Promise<Users> => {
  const folder = join(state, 'users')
  await mkdir(folder, { recursive: true })
  const own = join(folder, `${process.pid}-${++joined}`)
  await writeFile(own, await startTime(process.pid))
  return {
    leave: async () => {
      await rm(own, { force: true })
      let alive = 0
      for (const name of await readdir(folder)) {
        const path = join(folder, name)
        const since = await readFile(path, 'utf8').catch(() => '')
        if (since !== '' && since === (await startTime(Number.parseInt(name, 10)))) alive++
        else await rm(path, { force: true })
      }
      return alive
    },
  }
}

let joined = 0

/** When the process started, in the kernel's ticks; '' when there is none: a number may be used again. */
const startTime = async (pid: number): Promise<string> => {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? ''
}
