// What the result of a merge will answer, known before any work: whether its candidates can be compared as a search says.

import { encoderUseOf } from '../models/encoder-heads.ts'
import { openCheckpoint } from '../weights/checkpoint.ts'
import { parseModelConfig } from '../weights/model-config.ts'
import { useOf } from '../weights/tuned-encoder.ts'
import type { AdapterPlan } from './adapter-plan.ts'
import { bad } from './fields.ts'
import { bareName } from './models.ts'
import type { MergePlan } from './plan.ts'
import type { SearchSettings } from './search-settings.ts'

/** The next message of a chat, the rest of a text, labels, or vectors. */
export type Answers = 'chat' | 'text' | 'labels' | 'vectors'

/** Of the model that a plan makes. */
export function answersOfModel({ config, tensors, chat_template }: MergePlan): Answers {
  const parsed = parseModelConfig(config, 'config.json')
  if (!parsed.encoder) return chat_template === undefined ? 'text' : 'chat'
  const names = new Set(tensors.map(({ name }) => bareName(name)))
  return answersOf(encoderUseOf(parsed, (name) => names.has(bareName(name))))
}

/** Of the adapter that a plan makes, over the model at this path. */
export async function answersOfAdapter(
  { beside, config }: AdapterPlan,
  base: string,
): Promise<Answers> {
  const checkpoint = await openCheckpoint(base)
  if (!checkpoint.config.encoder) return checkpoint.chat_template === undefined ? 'text' : 'chat'
  return answersOf(useOf({ ...beside, config, pairs: new Map() }))
}

const answersOf = ({ method }: { method: string }): Answers =>
  method === 'classification' ? 'labels' : 'vectors'

/** Throws where candidates cannot be compared by what the search goes by. */
export function checkSearch(search: SearchSettings, answers: Answers): void {
  const refused = search.eval === undefined ? BY_LOSS[answers] : BY_EVAL[answers]
  const param = search.eval === undefined ? 'search.validation_file' : 'search.eval'
  if (refused !== undefined) throw bad(param, refused, 'unsupported_value')
}

const BY_EVAL: Partial<Record<Answers, string>> = {
  vectors: 'What this merge makes gives vectors, and an eval asks for labels or for text',
  text: 'What this merge makes has no chat template, and an eval asks with messages',
}

const ENCODER = 'What this merge makes is an encoder, which has no loss on rows of text'
const BY_LOSS: Partial<Record<Answers, string>> = {
  vectors: ENCODER,
  labels: `${ENCODER}. Search by 'search.eval'`,
}
