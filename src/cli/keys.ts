// luthier keys: makes, lists and revokes API keys.

import { Command, Option } from 'commander'
import { createKey, endKey, listKeys, type Scope, scopes } from '../service/auth/keys.ts'
import { namedProject } from '../service/auth/projects.ts'
import { table, timeText, withOrganization } from './operator.ts'

const project = () => new Option('--project <project>', 'id or name of the project')

export const keysCommand = () =>
  new Command('keys')
    .description('make, list and revoke API keys')
    .addCommand(
      new Command('create')
        .description('make a key; it is shown once and kept nowhere')
        .argument('<name>', 'what it is for')
        .addOption(project())
        .addOption(
          new Option('--scope <scope>', 'what it may do').choices(scopes).default('member'),
        )
        .action((name: string, options: { project?: string; scope: Scope }) =>
          withOrganization(async (db, organization_id, default_project) => {
            const project_id =
              options.project === undefined
                ? default_project
                : (await namedProject(db, organization_id, options.project)).id
            const made = await createKey(db, { project_id, name, scope: options.scope })
            console.error(
              `${made.id}, ${options.scope} in ${project_id}. The key is shown only now:`,
            )
            console.log(made.key)
          }),
        ),
    )
    .addCommand(
      new Command('list')
        .description('list keys; never the keys themselves')
        .addOption(project())
        .action((options: { project?: string }) =>
          withOrganization(async (db, organization_id) => {
            const named = options.project
              ? await namedProject(db, organization_id, options.project)
              : undefined
            const keys = await listKeys(db, organization_id, named?.id)
            console.log(
              table([
                ['ID', 'PROJECT', 'SCOPE', 'CREATED', 'REVOKED', 'NAME'],
                ...keys.map((key) => [
                  key.id,
                  key.project_id,
                  key.scope,
                  timeText(key.created_at),
                  timeText(key.revoked_at) || '-',
                  key.name,
                ]),
              ]),
            )
          }),
        ),
    )
    .addCommand(
      new Command('revoke')
        .description('end a key for good')
        .argument('<id>', 'of the key')
        .action((id: string) =>
          withOrganization(async (db, organization_id) => {
            const { name } = await endKey(db, organization_id, id)
            console.log(`${id} (${name}) is revoked.`)
          }),
        ),
    )
