// luthier models: the base models on this machine.

import { Command } from 'commander'
import { readConfig } from '../config.ts'
import { scanBaseModels } from '../service/models/base-models.ts'

export const modelsCommand = () =>
  new Command('models').description('list the base models on this machine').action(async () => {
    const { models } = readConfig(process.env)
    const found = await scanBaseModels(models)
    for (const { id, path } of found.values()) console.log(`${id}\t${path}`)
    if (found.size === 0)
      console.error(`There is no base model in ${models} yet. Get one with: luthier pull SOURCE`)
  })
