// What a project is to an operator: made, listed, archived. All it holds stays, and is seen by its own keys only.

import { invalidRequest, notFound } from '../../errors.ts'
import type { Db } from '../db/pool.ts'
import {
  archiveProject,
  findProject,
  insertProject,
  listProjects,
  type ProjectRecord,
} from '../db/projects.ts'
import { newId } from '../ids.ts'

export { listProjects, type ProjectRecord } from '../db/projects.ts'

/** Makes a project of the organization; names may repeat, ids do not. */
export const createProject = (
  db: Db,
  organization_id: string,
  name: string,
): Promise<ProjectRecord> => insertProject(db, { id: newId('proj_'), organization_id, name })

/** A project that lives, by its id, or by its name where one alone has it. */
export const namedProject = async (
  db: Db,
  organization_id: string,
  name: string,
): Promise<ProjectRecord> => {
  const projects = await listProjects(db, organization_id, { archived: false })
  const found = projects.filter((project) => project.id === name)
  if (found.length === 0) found.push(...projects.filter((project) => project.name === name))
  if (found.length > 1)
    throw invalidRequest(
      `${found.length} projects are called ${name}; name one by its id: ${found.map(({ id }) => id).join(', ')}.`,
    )
  if (!found[0]) throw projectNotFound(name)
  return found[0]
}

/** A project of the organization, archived or not. */
export const retrieveProject = async (
  db: Db,
  organization_id: string,
  id: string,
): Promise<ProjectRecord> => {
  const project = await findProject(db, organization_id, id)
  if (!project) throw projectNotFound(id)
  return project
}

/** From here on its keys are refused. The default project stays: the first key belongs to it. */
export const endProject = async (
  db: Db,
  organization_id: string,
  id: string,
): Promise<ProjectRecord> => {
  const archived = await archiveProject(db, organization_id, id)
  if (archived) return archived
  await retrieveProject(db, organization_id, id)
  throw invalidRequest('The default project cannot be archived.')
}

const projectNotFound = (name: string) => notFound(`There is no project ${name}.`)
