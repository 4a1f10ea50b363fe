// luthier verify DIR: whether an exported folder is as it was signed.

import { Command } from 'commander'
import { verifyFolder } from '../service/provenance/verify.ts'
import { withProvenance } from './with-provenance.ts'

export const verifyCommand = () =>
  new Command('verify')
    .description('check an exported folder against its signed statement')
    .argument('<folder>', 'that `luthier export` wrote, or an unpacked download')
    .option(
      '--key <public key>',
      'who must have signed, as GET /v1/provenance/key gives it; else this installation',
    )
    .action(async (folder: string, { key }: { key?: string }) => {
      const check = async (public_key: string) => {
        const { model, files } = await verifyFolder(folder, public_key)
        console.log(`${folder}: ${model.model}, ${files.length} files as they were signed.`)
      }
      if (key !== undefined) return check(key)
      await withProvenance(async ({ provenance }) => check((await provenance.key()).public_key))
    })
