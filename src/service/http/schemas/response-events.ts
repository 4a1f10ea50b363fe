// What happens while a response is made, event by event, in the order that clients put it together in.

import type { InferEvent, ListedToken } from '../../../engine/infer/request.ts'
import { createToolParser, type Parsed, type ToolCall } from '../../../engine/tools/parse.ts'
import type { CallItem, ItemStatus, LogProb, MessageItem, OutputItem } from '../../answers/items.ts'
import { newId } from '../../ids.ts'
import { toApiError } from '../errors.ts'
import type { Progress, ResponseObject } from './responses.ts'

export interface ResponseStreamEvent {
  type: string
  sequence_number: number
  /** Of those that tell how far the whole has come. */
  response?: ResponseObject
  [field: string]: unknown
}

interface Options {
  tool_names: readonly string[]
  present(progress: Progress): ResponseObject
  /** Is awaited before the end is told. */
  keep(response: ResponseObject): Promise<void>
  /** Random text, as long as it likes, for each delta; absent where nobody asked for it. */
  pad?: (() => string) | undefined
}

/**
 * The events of one answer. Text makes a message, which ends where a call begins; what is said after a call is a
 * message of its own. What fails after the first event is told by `response.failed`, and thrown.
 */
export async function* responseEvents(
  events: AsyncIterable<InferEvent>,
  { tool_names, present, keep, pad }: Options,
): AsyncGenerator<ResponseStreamEvent, void, undefined> {
  let sequence_number = 0
  const tell = (type: string, fields: object): ResponseStreamEvent => ({
    type,
    sequence_number: sequence_number++,
    ...fields,
  })
  const padded = () => (pad ? { obfuscation: pad() } : {})
  const writer = createWriter(tell, padded)
  const { output } = writer
  const usage = { prompt_tokens: 0, completion_tokens: 0, cached_tokens: 0 }
  let parser: ReturnType<typeof createToolParser> | undefined
  try {
    for await (const event of events) {
      switch (event.type) {
        case 'ready':
        case 'echo':
          break
        case 'prompt': {
          usage.prompt_tokens += event.prompt_tokens
          if (event.tool_syntax) parser = createToolParser(event.tool_syntax, tool_names)
          const response = present({ status: 'in_progress', output: [] })
          yield tell('response.created', { response })
          yield tell('response.in_progress', { response })
          break
        }
        case 'delta': {
          const parsed = parser?.push(event.text) ?? { content: event.text, calls: [] }
          yield* writer.write(parsed, event.tokens)
          break
        }
        case 'finish': {
          usage.completion_tokens += event.completion_tokens
          usage.cached_tokens += event.cached_tokens ?? 0
          if (parser) yield* writer.write(parser.end())
          const status = event.finish_reason === 'length' ? 'incomplete' : 'completed'
          yield* writer.end(status)
          const response = present({ status, output, usage })
          await keep(response)
          yield tell(`response.${status}`, { response })
          break
        }
        default:
          event satisfies never
      }
    }
  } catch (error) {
    if (sequence_number > 0) {
      const { message } = toApiError(error)
      const failed = { status: 'failed' as const, error: { code: 'server_error', message } }
      yield tell('response.failed', { response: present({ ...failed, output }) })
    }
    throw error
  }
}

/** Writes items down as they come about, and tells it. */
function createWriter(
  tell: (type: string, fields: object) => ResponseStreamEvent,
  padded: () => { obfuscation?: string },
) {
  const output: OutputItem[] = []
  let open: { item: MessageItem; text: string; logprobs: LogProb[] } | undefined
  // Of tokens whose text may still turn out to be a call.
  let waiting: LogProb[] = []

  const part = (text: string, logprobs: LogProb[]) => ({
    type: 'output_text' as const,
    text,
    annotations: [] as [],
    logprobs,
  })
  const place = () => ({ output_index: output.length - 1 })
  const inPart = ({ id }: OutputItem) => ({ item_id: id, ...place(), content_index: 0 })

  function* say(delta: string, logprobs: LogProb[]) {
    if (!open) {
      const item: MessageItem = {
        id: newId('msg_'),
        type: 'message',
        status: 'in_progress',
        role: 'assistant',
        content: [],
      }
      output.push(item)
      open = { item, text: '', logprobs: [] }
      yield tell('response.output_item.added', { ...place(), item: { ...item, content: [] } })
      yield tell('response.content_part.added', { ...inPart(item), part: part('', []) })
    }
    open.text += delta
    open.logprobs.push(...logprobs)
    if (delta === '' && logprobs.length === 0) return
    const fields = { ...inPart(open.item), delta, logprobs, ...padded() }
    yield tell('response.output_text.delta', fields)
  }

  function* endText(status: ItemStatus) {
    if (!open) return
    const { item, text, logprobs } = open
    open = undefined
    item.status = status
    item.content = [part(text, logprobs)]
    yield tell('response.output_text.done', { ...inPart(item), text, logprobs })
    yield tell('response.content_part.done', { ...inPart(item), part: part(text, logprobs) })
    yield tell('response.output_item.done', { ...place(), item: { ...item } })
  }

  function* call({ name, arguments: args }: ToolCall) {
    yield* endText('completed')
    const item: CallItem = {
      id: newId('fc_'),
      type: 'function_call',
      status: 'completed',
      call_id: newId('call_'),
      name,
      arguments: args,
    }
    output.push(item)
    const begun = { ...item, status: 'in_progress' as const, arguments: '' }
    const where = { item_id: item.id, ...place() }
    yield tell('response.output_item.added', { ...place(), item: begun })
    yield tell('response.function_call_arguments.delta', { ...where, delta: args, ...padded() })
    yield tell('response.function_call_arguments.done', { ...where, name, arguments: args })
    yield tell('response.output_item.done', { ...place(), item })
  }

  return {
    output,

    *write({ content, calls }: Parsed, tokens: readonly ListedToken[] = []) {
      waiting.push(...tokens.map(toLogProb))
      if (content !== '' || (open && waiting.length > 0 && calls.length === 0)) {
        yield* say(content, waiting)
        waiting = []
      }
      for (const one of calls) yield* call(one)
      if (calls.length > 0) waiting = []
    },

    /** A message that was begun ends; where nothing came at all, it is one without text. */
    *end(status: ItemStatus) {
      if (output.length === 0) yield* say('', waiting)
      yield* endText(status)
    },
  }
}

/** A special token has no bytes. */
const toLogProb = ({ token, bytes, logprob, top }: ListedToken): LogProb => ({
  token,
  bytes: bytes ?? [],
  logprob,
  top_logprobs: top.map((one) => ({
    token: one.token,
    bytes: one.bytes ?? [],
    logprob: one.logprob,
  })),
})
