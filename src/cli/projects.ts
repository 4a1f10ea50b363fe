// luthier projects: makes, lists and archives projects.

import { Command } from 'commander'
import { createProject, endProject, listProjects, namedProject } from '../service/auth/projects.ts'
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
        .description('have a project refuse every request; nothing of it is deleted')
        .argument('<project>', 'its id or name')
        .action((name: string) =>
          withOrganization(async (db, organization_id) => {
            const { id } = await namedProject(db, organization_id, name)
            await endProject(db, organization_id, id)
            console.log(`${id} is archived.`)
          }),
        ),
    )
