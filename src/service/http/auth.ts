// Bearer keys → the caller of a request, or 401; what a key may do, or 403.

import type { FastifyInstance, FastifyRequest } from 'fastify'
import { ApiError } from '../../errors.ts'
import { allows, type Caller, findCaller, type Scope } from '../auth/keys.ts'
import type { Db } from '../db/pool.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks; set for every route under /v1. */
    caller: Caller
  }
  interface FastifyContextConfig {
    /** The scope a route needs; without it `read` for GET and `member` for what changes something. */
    scope?: Scope
  }
}

/**
 * Requires a key for every route of this instance. The key alone says organization and project; where a client
 * names them too, by OpenAI-Organization (id or slug) and OpenAI-Project, they must be the key's own.
 */
export const requireKey = (app: FastifyInstance, db: Db): void => {
  app.decorateRequest('caller', null as unknown as Caller)
  app.addHook('onRequest', async (request, reply) => {
    const caller = await findCaller(db, readKey(request))
    if (!caller) throw wrongKey(readKey(request))
    refuseMismatch(request, caller)
    if (caller.project_archived) throw archivedProject()
    request.caller = caller
    reply.header('openai-organization', caller.organization_slug)

    const needed = request.routeOptions.config.scope ?? defaultScope(request.method)
    if (!allows(caller.scope, needed)) throw missingScope(needed)
  })
}

const refuseMismatch = ({ headers }: FastifyRequest, caller: Caller): void => {
  const organization = headers['openai-organization']
  if (
    organization &&
    ![caller.organization_id, caller.organization_slug].includes(`${organization}`)
  )
    throw mismatch('organization')
  const project = headers['openai-project']
  if (project && project !== caller.project_id) throw mismatch('project')
}

const mismatch = (what: 'organization' | 'project'): ApiError =>
  new ApiError(
    401,
    `OpenAI-${what[0]!.toUpperCase()}${what.slice(1)} header should match ${what} for API key`,
    { code: `mismatched_${what}` },
  )

const archivedProject = (): ApiError =>
  new ApiError(
    401,
    'The project you are requesting has been archived and is no longer accessible.',
    { code: 'not_authorized_invalid_project' },
  )

const defaultScope = (method: string): Scope =>
  method === 'GET' || method === 'HEAD' ? 'read' : 'member'

const readKey = (request: FastifyRequest): string => {
  const key = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? '')?.[1]
  if (key === undefined)
    throw new ApiError(
      401,
      "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
      { code: 'invalid_api_key' },
    )
  return key
}

const wrongKey = (key: string): ApiError =>
  new ApiError(401, `Incorrect API key provided: ${mask(key)}.`, { code: 'invalid_api_key' })

/** Enough for its owner to know it, too little for anyone else. */
const mask = (key: string): string =>
  key.length < 16 ? '*'.repeat(key.length) : `${key.slice(0, 3)}****${key.slice(-4)}`

const missingScope = (needed: Scope): ApiError =>
  new ApiError(
    403,
    `You have insufficient permissions for this operation. Missing scopes: ${needed}. Check that you use an API key that has them.`,
    { code: 'insufficient_permissions' },
  )
