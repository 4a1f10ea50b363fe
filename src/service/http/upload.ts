// A form with one file in it: the file is streamed away wherever it stands, the fields are gathered around it.

import type { FastifyRequest } from 'fastify'
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { ApiError, invalidRequest } from '../../errors.ts'
import { describeMistakes } from './validation.ts'

export interface ReceivedForm<File> {
  readonly file: File
  readonly filename: string
  readonly fields: Record<string, unknown>
}

/**
 * Reads the form to its end; the file stands in the field `name`. `receive` gets the bytes of its file as they come; `discard` is called with what it
 * returned when the rest of the form is broken.
 */
export const readForm = async <File>(
  request: FastifyRequest,
  receive: (body: AsyncIterable<Uint8Array>) => Promise<File>,
  discard: (file: File) => Promise<void>,
  name = 'file',
): Promise<ReceivedForm<File>> => {
  if (!request.isMultipart())
    throw new ApiError(415, 'This request takes multipart/form-data.', {
      code: 'unsupported_content_type',
    })
  const fields: Record<string, unknown> = {}
  let found: { file: File; filename: string } | undefined
  try {
    for await (const part of request.parts()) {
      if (part.type === 'field') setField(fields, part.fieldname, part.value)
      else if (part.fieldname !== name || found) throw unknownFile(part.fieldname)
      else found = { file: await receive(part.file), filename: nameOf(part.filename) }
    }
    if (!found) throw missingFile(name)
    return { ...found, fields }
  } catch (error) {
    // What still comes is let pass: a client that is not read does not read either, and its connection hangs.
    request.raw.unpipe()
    request.raw.resume()
    if (found) await discard(found.file)
    // What the form's reader throws when the form ends too early is a plain Error.
    if (error instanceof Error && /unexpected end|premature close|aborted/i.test(error.message))
      throw invalidRequest('The upload was cut before its end.', { code: 'incomplete_upload' })
    throw error
  }
}

/** Holds the fields against their schema; numbers in a form are strings. */
export const checkFields = <T>(schema: TSchema, fields: unknown): T => {
  const check = Compile(schema)
  if (!check.Check(fields)) throw describeMistakes(check.Errors(fields), fields)
  return fields as T
}

/** `expires_after[seconds]` → `{ expires_after: { seconds } }`, whose digits are a number. */
const setField = (fields: Record<string, unknown>, name: string, text: unknown): void => {
  const [, outer, inner] = /^([^[\]]+)\[([^[\]]+)\]$/.exec(name) ?? []
  if (outer === undefined || inner === undefined) {
    fields[name] = text
    return
  }
  const value = typeof text === 'string' && /^\d{1,15}$/.test(text) ? Number(text) : text
  const group = Object.hasOwn(fields, outer) ? fields[outer] : undefined
  fields[outer] = { ...(typeof group === 'object' ? group : {}), [inner]: value }
}

/** Only a name: clients escape quotes, and some send the path they had. */
const nameOf = (sent: string): string => {
  const name = sent.replaceAll('%22', '"').split(/[/\\]/).at(-1) ?? ''
  const printable = [...name].filter((letter) => letter >= ' ' && letter !== '\u007f').join('')
  return printable.slice(0, 255) || 'file'
}

const missingFile = (name: string) =>
  invalidRequest(`Missing required parameter: '${name}'.`, {
    param: name,
    code: 'missing_required_parameter',
  })

const unknownFile = (name: string) =>
  invalidRequest(`Unknown parameter: '${name}'.`, { param: name, code: 'unknown_parameter' })
