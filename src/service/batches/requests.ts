// The lines of a batch's input: which request each one is, or what is wrong with it. Knows no endpoint's body.

import { type Line, readLines } from '../../engine/datasets/jsonl.ts'
import type { LineError } from '../db/batches.ts'

/** One request of a batch. */
export interface BatchRequest {
  /** From 1, as editors count. */
  line: number
  custom_id: string
  body: Record<string, unknown>
}

const MAX_REQUESTS = 50_000
/** Of the lines that are wrong, so many are told. */
const MAX_ERRORS = 100

/** All requests of a file that was checked. */
export async function* readRequests(
  path: string,
  endpoint: string,
): AsyncGenerator<BatchRequest, void, undefined> {
  for await (const line of readLines(path)) {
    const read = readRequest(line, endpoint)
    if (read && 'custom_id' in read) yield read
  }
}

/** Reads every line once: how many requests there are, or what is wrong with lines. */
export async function checkRequests(
  path: string,
  endpoint: string,
): Promise<{ total: number; model: string | null; errors: LineError[] }> {
  const errors: LineError[] = []
  const seen = new Set<string>()
  const models = new Set<unknown>()
  const wrong = (line: number | null, code: string, message: string, param: string | null = null) =>
    errors.push({ code, message, line, param })
  for await (const line of readLines(path)) {
    if (errors.length >= MAX_ERRORS) break
    const read = readRequest(line, endpoint)
    if (!read) continue
    if (!('custom_id' in read)) {
      errors.push(read)
      continue
    }
    if (seen.has(read.custom_id))
      wrong(
        read.line,
        'duplicate_custom_id',
        'The custom_id for this request is a duplicate of another request. The custom_id must be unique for each request in a batch.',
        'custom_id',
      )
    seen.add(read.custom_id)
    if (models.size < 2) models.add(read.body.model)
    if (seen.size > MAX_REQUESTS) {
      wrong(
        read.line,
        'too_many_requests',
        `A batch has at most ${MAX_REQUESTS} requests, and this is one more.`,
      )
      break
    }
  }
  if (seen.size === 0 && errors.length === 0)
    wrong(null, 'empty_file', 'The input file has no requests.')
  const [only] = models
  const model = models.size === 1 && typeof only === 'string' && !only.includes('\0') ? only : null
  return { total: seen.size, model, errors }
}

/** Undefined where the line is blank. */
function readRequest(line: Line, endpoint: string): BatchRequest | LineError | undefined {
  const { number } = line
  const wrong = (code: string, message: string, param: string | null = null): LineError => ({
    code,
    message,
    line: number,
    param,
  })
  if ('error' in line) return wrong('invalid_json_line', `This line ${line.error}.`)
  if (line.text.trim() === '') return undefined
  let request: unknown
  try {
    request = JSON.parse(line.text)
  } catch {
    return wrong('invalid_json_line', 'This line is not parseable as valid JSON.')
  }
  if (!isObject(request))
    return wrong('invalid_request', 'This line is no object with custom_id, method, url and body.')
  const { custom_id, method, url, body } = request
  for (const name of ['custom_id', 'method', 'url', 'body'])
    if (request[name] === undefined)
      return wrong('missing_required_parameter', `Missing required parameter: '${name}'.`, name)
  if (typeof custom_id !== 'string')
    return wrong('invalid_type', 'Invalid type for custom_id: expected a string.', 'custom_id')
  if (method !== 'POST') return wrong('invalid_method', "The method must be 'POST'.", 'method')
  if (url !== endpoint)
    return wrong(
      'invalid_url',
      `The URL provided for this request does not match the batch endpoint, which is '${endpoint}'.`,
      'url',
    )
  if (!isObject(body)) return wrong('invalid_type', 'The body must be an object.', 'body')
  if (body.stream === true || body.background === true)
    return wrong(
      'unsupported_parameter',
      'Answers of a batch come as files: stream and background are not supported.',
      body.stream === true ? 'body.stream' : 'body.background',
    )
  return { line: number, custom_id, body }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
