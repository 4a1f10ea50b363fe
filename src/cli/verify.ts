// luthier verify PATH: whether an exported folder or GGUF is as it was signed.

import { Command } from 'commander'
import { verifyExport } from '../service/provenance/verify.ts'
import { withProvenance } from './with-provenance.ts'

export const verifyCommand = () =>
  new Command('verify')
    .description('check an exported folder or GGUF against its signed statement')
    .argument('<path>', 'that `luthier export` wrote, or an unpacked download')
    .option(
      '--key <public key>',
      'who must have signed, as GET /v1/provenance/key gives it; else this installation',
    )
    .action(async (folder: string, { key }: { key?: string }) => {
      const check = async (public_key: string) => {
        const { model, files } = await verifyExport(folder, public_key)
        console.log(`${folder}: ${model.model}, ${files.length} files as they were signed.`)
      }
      if (key !== undefined) return check(key)
      await withProvenance(async ({ provenance }) => check((await provenance.key()).public_key))
    })
