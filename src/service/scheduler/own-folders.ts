// What a message says to others names no folder of this machine.

import { basename } from 'node:path'

/**
 * Takes these folders out of a message: of `/srv/our models/a/b.gguf` in `/srv/our models` stays `a/b.gguf`. A folder
 * itself keeps its last name. Known folders only: where a path ends, its text does not say.
 */
export function withoutFolders(message: string, folders: readonly string[]): string {
  // The longest first: one may lie in another.
  const known = folders.map((folder) => folder.replace(/\/+$/, '')).filter(Boolean)
  return known
    .sort((a, b) => b.length - a.length)
    .reduce(
      (text, folder) =>
        text.replace(
          new RegExp(`(?<![\\w.-])${escaped(folder)}(?:/+|(?![\\w.-]))`, 'g'),
          (found) => (found.endsWith('/') ? '' : basename(folder)),
        ),
      message,
    )
}

const escaped = (text: string) => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
