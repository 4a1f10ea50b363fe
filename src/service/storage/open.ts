// The store that the settings name: a folder under `home`, or a bucket.

import { join } from 'node:path'
import { openFolderStore } from './folder.ts'
import type { ObjectStore } from './object-store.ts'
import type { S3Settings } from './s3.ts'

export interface StoreSettings {
  readonly home: string
  /** Undefined: the folder. */
  readonly s3: (S3Settings & { readonly cacheLimit: number }) | undefined
}

/** The SDK is loaded only where it is used. */
export const openStore = async ({ home, s3 }: StoreSettings): Promise<ObjectStore> => {
  if (!s3) return openFolderStore(join(home, 'objects'))
  const { openS3Store } = await import('./s3.ts')
  const cache = { folder: join(home, 'cache', 'objects'), limit_bytes: s3.cacheLimit }
  return openS3Store({ ...s3, cache })
}
