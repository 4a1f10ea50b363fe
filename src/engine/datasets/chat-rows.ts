// Rows of chat messages: what OpenAI's fine-tuning takes, every mistake found and named.

import { encodeChatRow } from '../tokenizer/assistant-mask.ts'
import type { Format } from './format.ts'
import { chatOf, checkMessages, checkTools, type Json } from './messages.ts'
import type { RowReport } from './report-row.ts'

export const chatRows: Format = {
  name: 'chat',
  method: 'supervised',
  shape: 'chat messages',
  marks: ['messages'],

  check(row, report) {
    checkTools(row, '', report)
    const messages = checkMessages(row.messages, '/messages', report)
    if (messages) return checkAssistants(messages, report)
    report.add(
      'missing_messages_list',
      'messages' in row ? '/messages' : '',
      "is missing the list 'messages'",
    )
  },

  encode: (row, coder) => encodeChatRow(coder, chatOf(row)),
}

function checkAssistants(messages: readonly Json[], report: RowReport) {
  const assistants = messages.filter(({ role }) => role === 'assistant')
  if (assistants.length === 0)
    return report.add(
      'example_missing_assistant_message',
      '/messages',
      'has no message of the assistant',
    )
  if (messages.at(-1)?.role !== 'assistant')
    report.add(
      'last_message_not_assistant',
      `/messages/${messages.length - 1}`,
      'is the last one: it must come from the assistant',
    )
  if (assistants.every(({ weight }) => weight === 0))
    report.add(
      'all_weights_zero',
      '/messages',
      'gives all assistant messages weight 0: there is nothing to learn',
    )
}
