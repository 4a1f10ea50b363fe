// Chat completions that were kept, on the wire: beside the answer what it was asked with.

import { type Static, Type } from 'typebox'
import type { StoredCompletion, StoredMessage } from '../../db/chat-completions.ts'
import type { ChatCompletionRequest } from './chat.ts'
import { ChatCompletion } from './chat-reply.ts'
import { Metadata } from './fine-tuning.ts'

const page = {
  after: Type.Optional(Type.String()),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 20 })),
  order: Type.Optional(Type.Enum(['asc', 'desc'], { default: 'asc' })),
}

/** Takes `metadata[key]=value` pairs too. */
export const ListCompletionsQuery = Type.Object(
  { ...page, model: Type.Optional(Type.String()) },
  { patternProperties: { '^metadata\\[[^\\]]+\\]$': Type.String() } },
)

export const ListMessagesQuery = Type.Object(page)

export const CompletionParams = Type.Object({ completion_id: Type.String() })

export const UpdateCompletionRequest = Type.Object(
  { metadata: Type.Union([Metadata, Type.Null()]) },
  { additionalProperties: false },
)

export const DeletedCompletion = Type.Object({
  object: Type.Literal('chat.completion.deleted'),
  id: Type.String(),
  deleted: Type.Literal(true),
})

const asSent = Type.Unknown({ description: 'As it was sent, or null.' })

export const StoredChatCompletion = Type.Object(
  {
    ...ChatCompletion.properties,
    metadata: Metadata,
    seed: Type.Integer(),
    temperature: Type.Number(),
    top_p: Type.Number(),
    frequency_penalty: Type.Number(),
    presence_penalty: Type.Number(),
    response_format: asSent,
    tools: asSent,
    tool_choice: asSent,
  },
  { $id: 'StoredChatCompletion' },
)

/** What is kept beside an answer. */
export const askedWith = (body: ChatCompletionRequest, seed: number) => ({
  seed: body.seed ?? seed,
  temperature: body.temperature ?? 1,
  top_p: body.top_p ?? 1,
  frequency_penalty: body.frequency_penalty ?? 0,
  presence_penalty: body.presence_penalty ?? 0,
  response_format: body.response_format ?? null,
  tools: body.tools ?? null,
  tool_choice: body.tool_choice ?? null,
})

export const presentStored = ({ completion, metadata }: StoredCompletion) =>
  ({ ...completion, metadata }) as Static<typeof StoredChatCompletion>

export const StoredChatMessage = Type.Object(
  {
    id: Type.String(),
    role: Type.String(),
    content: Type.Union([Type.String(), Type.Null()]),
    content_parts: Type.Union([Type.Array(Type.Object({})), Type.Null()]),
    refusal: Type.Union([Type.String(), Type.Null()]),
    name: Type.Optional(Type.String()),
    tool_calls: Type.Optional(Type.Array(Type.Unknown())),
    tool_call_id: Type.Optional(Type.String()),
  },
  { $id: 'StoredChatMessage' },
)

/** The id of a message says where it stands. */
export const presentMessages = ({ id, messages }: StoredCompletion) =>
  messages.map((message, at) => ({ id: `${id}-${at}`, ...presentMessage(message) }))

const presentMessage = ({
  role,
  content = null,
  refusal = null,
  name,
  tool_calls,
  tool_call_id,
}: StoredMessage) => ({
  role,
  content: typeof content === 'object' ? null : content,
  content_parts: typeof content === 'object' && content !== null ? [...content] : null,
  refusal,
  ...(name !== undefined && { name }),
  ...(tool_calls?.length && { tool_calls }),
  ...(tool_call_id !== undefined && { tool_call_id }),
})
