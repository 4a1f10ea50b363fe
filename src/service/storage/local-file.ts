// An object as a file that an engine thread may open, whatever store it lies in.

import type { LocalFile, ObjectKey, ObjectStore } from './object-store.ts'

export type { LocalFile } from './object-store.ts'

/** The object's own file, or a copy on this machine's disk that stays until this is disposed; its sum is checked. */
export const localFile = (store: ObjectStore, key: ObjectKey): Promise<LocalFile> =>
  store.localFile(key)
