// What answers a chat: the completion, and the chunks of one that is streamed.

import { type Static, Type } from 'typebox'
import type { InferEvent, ListedToken } from '../../../engine/infer/request.ts'
import {
  createToolParser,
  type Parsed,
  type ToolCall,
  type ToolParser,
} from '../../../engine/tools/parse.ts'
import type { ToolSyntax } from '../../../engine/tools/syntax.ts'
import type { Answers } from '../../scheduler/generations.ts'
import { type AnswerHead, presentUsage, Usage } from './generation.ts'
import { callChunks, MessageToolCall, presentCall, ToolCallChunk } from './tools.ts'

const head = {
  id: Type.String(),
  created: Type.Integer(),
  model: Type.String(),
  system_fingerprint: Type.String(),
  service_tier: Type.Optional(Type.Literal('default')),
}

const tokenLogprob = {
  token: Type.String(),
  logprob: Type.Number(),
  bytes: Type.Union([Type.Array(Type.Integer()), Type.Null()]),
}

const Logprobs = Type.Union(
  [
    Type.Object({
      content: Type.Array(
        Type.Object({
          ...tokenLogprob,
          top_logprobs: Type.Array(Type.Object(tokenLogprob)),
        }),
      ),
      refusal: Type.Null(),
    }),
    Type.Null(),
  ],
  {
    description:
      'Natural log-probabilities by the model, before penalties, bias, temperature and truncation. The token that ends the answer is not listed. A special token has no bytes.',
  },
)

type ChatFinish = 'stop' | 'length' | 'tool_calls' | 'function_call'

const ChatFinishReason = Type.Unsafe<ChatFinish>({
  type: 'string',
  enum: ['stop', 'length', 'tool_calls', 'function_call'],
})

const FunctionCallReply = Type.Object({ name: Type.String(), arguments: Type.String() })

export const ChatCompletion = Type.Object(
  {
    ...head,
    object: Type.Literal('chat.completion'),
    choices: Type.Array(
      Type.Object({
        index: Type.Integer(),
        message: Type.Object({
          role: Type.Literal('assistant'),
          content: Type.Union([Type.String(), Type.Null()]),
          refusal: Type.Null(),
          tool_calls: Type.Optional(Type.Array(MessageToolCall)),
          function_call: Type.Optional(FunctionCallReply),
        }),
        logprobs: Logprobs,
        finish_reason: ChatFinishReason,
      }),
    ),
    usage: Usage,
  },
  { $id: 'CreateChatCompletionResponse' },
)

export const ChatCompletionChunk = Type.Object(
  {
    ...head,
    object: Type.Literal('chat.completion.chunk'),
    choices: Type.Array(
      Type.Object({
        index: Type.Integer(),
        delta: Type.Object({
          role: Type.Optional(Type.Literal('assistant')),
          content: Type.Optional(Type.String()),
          refusal: Type.Optional(Type.Null()),
          tool_calls: Type.Optional(Type.Array(ToolCallChunk)),
          function_call: Type.Optional(Type.Partial(FunctionCallReply)),
        }),
        logprobs: Logprobs,
        finish_reason: Type.Union([ChatFinishReason, Type.Null()]),
      }),
    ),
    usage: Type.Optional(Type.Union([Usage, Type.Null()])),
    obfuscation: Type.Optional(Type.String({ description: 'Of random content and length.' })),
  },
  { $id: 'CreateChatCompletionStreamResponse' },
)
type Chunk = Static<typeof ChatCompletionChunk>

/** What the answers of one chat request have in common. */
export interface ChatHead extends AnswerHead {
  service_tier?: 'default'
}

export const presentChat = (
  head: ChatHead,
  answers: Answers,
  { tool_names = [], functions = false }: ToolOptions = {},
): Static<typeof ChatCompletion> => ({
  ...head,
  object: 'chat.completion',
  choices: answers.choices.map(({ text, tokens, finish_reason, mean_logprob }, index) => {
    const { content, calls } = parseTools(text, answers.tool_syntax, tool_names)
    const called = calls.length > 0
    return {
      index,
      message: {
        role: 'assistant' as const,
        content: called && content === '' ? null : content,
        refusal: null,
        ...(called && presentCalls(calls, functions, [head.id, index])),
      },
      logprobs: mean_logprob === undefined ? null : presentLogprobs(tokens),
      finish_reason: called && finish_reason === 'stop' ? calledReason(functions) : finish_reason,
    }
  }),
  usage: presentUsage(answers),
})

/** What a request may be answered with, beside text. */
interface ToolOptions {
  tool_names?: readonly string[]
  /** In the older form, one call without an id. */
  functions?: boolean
}

const calledReason = (functions: boolean) => (functions ? 'function_call' : 'tool_calls')

const presentCalls = (
  calls: readonly ToolCall[],
  functions: boolean,
  [id, index]: [string, number],
) =>
  functions
    ? { function_call: calls[0]! }
    : { tool_calls: calls.map((call, at) => presentCall(call, id, index, at)) }

/** Text and calls of a whole answer; without tools all is text. */
function parseTools(
  text: string,
  syntax: ToolSyntax | undefined,
  names: readonly string[],
): Parsed {
  if (!syntax) return { content: text, calls: [] }
  const parser = createToolParser(syntax, names)
  const [some, rest] = [parser.push(text), parser.end()]
  return { content: some.content + rest.content, calls: [...some.calls, ...rest.calls] }
}

const presentLogprobs = (tokens: readonly ListedToken[] = []) => ({
  content: tokens.map(({ token, logprob, bytes, top }) => ({
    token,
    logprob,
    bytes,
    top_logprobs: top,
  })),
  refusal: null,
})

interface ChunkOptions extends ToolOptions {
  n: number
  include_usage: boolean
  /** Random text, as long as it likes, for each chunk; absent where nobody asked for it. */
  pad?: () => string
}

/** The chunks of a stream: each choice's role, its text, its end; at last the usage if it was asked for. */
export async function* presentChatChunks(
  head: ChatHead,
  events: AsyncIterable<InferEvent>,
  { n, include_usage, pad, tool_names = [], functions = false }: ChunkOptions,
): AsyncGenerator<Chunk> {
  const object = 'chat.completion.chunk' as const
  const usage = include_usage ? { usage: null } : {}
  const chunk = (
    index: number,
    delta: Chunk['choices'][number]['delta'],
    {
      finish_reason,
      tokens,
    }: {
      finish_reason?: ChatFinish
      tokens?: ListedToken[]
    } = {},
  ): Chunk => ({
    ...head,
    object,
    choices: [
      {
        index,
        delta,
        logprobs: tokens ? presentLogprobs(tokens) : null,
        finish_reason: finish_reason ?? null,
      },
    ],
    ...usage,
    ...(pad && { obfuscation: pad() }),
  })

  const tokens = { prompt_tokens: 0, completion_tokens: 0, cached_tokens: 0 }
  const parsers: { parser: ToolParser; calls: number }[] = []
  function* told(index: number, { content, calls }: Parsed, listed?: ListedToken[]) {
    if (content !== '' || listed) yield chunk(index, { content }, listed ? { tokens: listed } : {})
    const state = parsers[index]
    for (const call of calls) {
      const at = state ? state.calls++ : 0
      if (!functions)
        for (const piece of callChunks(call, head.id, index, at))
          yield chunk(index, { tool_calls: [piece] })
      else if (at === 0) {
        yield chunk(index, { function_call: { name: call.name, arguments: '' } })
        yield chunk(index, { function_call: { arguments: call.arguments } })
      }
    }
  }
  for await (const event of events) {
    switch (event.type) {
      case 'ready':
      case 'echo':
        break
      case 'prompt':
        tokens.prompt_tokens += event.prompt_tokens
        for (let index = 0; event.tool_syntax && index < n; index++)
          parsers.push({ parser: createToolParser(event.tool_syntax, tool_names), calls: 0 })
        for (let index = 0; index < n; index++)
          yield chunk(index, { role: 'assistant', content: '', refusal: null })
        break
      case 'delta':
        yield* told(
          event.index,
          parsers[event.index]?.parser.push(event.text) ?? { content: event.text, calls: [] },
          event.tokens,
        )
        break
      case 'finish': {
        tokens.completion_tokens += event.completion_tokens
        tokens.cached_tokens += event.cached_tokens ?? 0
        const state = parsers[event.index]
        if (state) yield* told(event.index, state.parser.end())
        const called = (state?.calls ?? 0) > 0 && event.finish_reason === 'stop'
        yield chunk(
          event.index,
          {},
          { finish_reason: called ? calledReason(functions) : event.finish_reason },
        )
        break
      }
      default:
        event satisfies never
    }
  }
  if (include_usage) yield { ...head, object, choices: [], usage: presentUsage(tokens) }
}
