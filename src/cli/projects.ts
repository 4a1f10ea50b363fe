// luthier projects: makes, lists and archives projects.

import { Command } from 'commander'
import { readConfig } from '../config.ts'
import { createProject, endProject, listProjects, namedProject } from '../service/auth/projects.ts'
import { cancelJobsOf } from '../service/jobs/cancel.ts'
import { openStore } from '../service/storage/open.ts'
import { table, timeText, withOrganization } from './operator.ts'

export const projectsCommand = () =>
  new Command('projects')
    .description('make, list and archive projects')
    .addCommand(
      new Command('create')
        .description('make a project; its id is printed')
        .argument('<name>', 'how people call it')
        .action((name: string) =>
          withOrganization(async (db, organization_id) =>
            console.log((await createProject(db, organization_id, name)).id),
          ),
        ),
    )
    .addCommand(
      new Command('list').description('list projects, archived ones too').action(() =>
        withOrganization(async (db, organization_id) => {
          const projects = await listProjects(db, organization_id, { archived: true })
          console.log(
            table([
              ['ID', 'CREATED', 'ARCHIVED', 'NAME'],
              ...projects.map((project) => [
                project.id,
                timeText(project.created_at),
                timeText(project.archived_at) || '-',
                project.name,
              ]),
            ]),
          )
        }),
      ),
    )
    .addCommand(
      new Command('archive')
        .description(
          'refuse every request of a project and cancel its jobs; nothing of it is deleted',
        )
        .argument('<project>', 'its id or name')
        .action((name: string) =>
          withOrganization(async (db, organization_id) => {
            const { id } = await namedProject(db, organization_id, name)
            await endProject(db, organization_id, id)
            const store = await openStore(readConfig(process.env))
            const cancelled = await cancelJobsOf({ db, store }, id)
            for (const job of cancelled) console.log(`${job} is cancelled.`)
            console.log(`${id} is archived.`)
          }),
        ),
    )
