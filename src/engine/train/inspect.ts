// A job before it runs: are its files sound, what is in them, and what will be done with them. Touches no device.

import { availableParallelism } from 'node:os'
import { invalidRequest } from '../../errors.ts'
import { lineSet } from '../curate/split.ts'
import { inspectFile } from '../datasets/inspect-file.ts'
import { elements } from '../tensor.ts'
import { openTokenizer } from '../tokenizer/tokenizer.ts'
import { type Checkpoint, openCheckpoint } from '../weights/checkpoint.ts'
import { type ModelConfig, requiredTensors } from '../weights/model-config.ts'
import { isTrainedWhole } from '../weights/whole-model.ts'
import { peakMemory } from './forecast.ts'
import { methodOf } from './methods/index.ts'
import type { MethodEncoder } from './methods/method.ts'
import { parametersOfRank, resolvePlan, sequenceLimit } from './plan.ts'
import type { Dataset, FileReport, Inspection, InspectRequest, Plan } from './request.ts'

/** Checks every row of the files; with sound ones it also gives the plan. Throws what is wrong with the model. */
export async function inspect(request: InspectRequest): Promise<Inspection> {
  const checkpoint = await openCheckpoint(request.model)
  const tokenizer = await openTokenizer(checkpoint)
  const max_sequence_length = sequenceLimit(request.hyperparameters, checkpoint.config)
  const method = methodOf(request.method)
  refuseModel(request, checkpoint)
  const { chat_template } = checkpoint
  const options = { tokenizer, chat_template, max_sequence_length }
  const look = async (
    { path }: Dataset,
    encoder: MethodEncoder,
    wanted?: (line: number) => boolean,
  ): Promise<{ report: FileReport; lengths: Int32Array }> => {
    const { truncation } = request.hyperparameters
    const { lengths, ...report } = await inspectFile(path, {
      ...options,
      truncation,
      encoder,
      wanted,
      detailed: request.curation !== undefined,
      tell: (rows) => request.tell?.('reading rows as tokens', rows),
    })
    return { report, lengths }
  }
  const encoder = method.encoder(options)
  const { held_back } = request
  const isHeld = held_back === undefined ? undefined : lineSet(held_back)
  const training = await look(request.training, encoder, isHeld && ((line) => !isHeld(line)))
  const facts = encoder.facts?.()
  const other = isHeld ? request.training : request.validation
  const validation = other && (await look(other, method.encoder(options, facts), isHeld))

  const inspection: Inspection = {
    type: 'inspected',
    training: training.report,
    ...(validation && { validation: validation.report }),
    ...(held_back !== undefined && { held_back }),
  }
  const sound = [training, validation].every((f) => !f || f.report.error_count === 0)
  if (!sound || training.lengths.length === 0) return inspection
  const { config } = checkpoint
  const plan = resolvePlan({
    method,
    facts,
    hyperparameters: request.hyperparameters,
    config,
    lengths: training.lengths,
    trained_tokens: training.report.trained_tokens,
    longestValidation: validation?.lengths.reduce((a, b) => Math.max(a, b), 0) ?? 0,
    memory: process.availableMemory(),
    compute: request.compute ?? { device: 'cpu', threads: availableParallelism() },
  })
  return {
    ...inspection,
    plan: { ...plan, ...(held_back !== undefined && { held_back }) },
    ...takes(plan, config),
  }
}

/** What will be trained, and the memory that it takes where that can be reckoned: with adapters, of decoders. */
function takes(plan: Plan, config: ModelConfig): Pick<Inspection, 'parameters' | 'memory_bytes'> {
  if (plan.adapter === 'none')
    return {
      parameters: [...requiredTensors(config).values()].reduce((n, dims) => n + elements(dims), 0),
    }
  const parameters = plan.lora.rank * parametersOfRank(config, plan.lora.target_modules)
  if (config.encoder) return { parameters }
  const { rows, row_length: length, keep = 'everything', precision, devices } = plan
  return {
    parameters,
    memory_bytes: peakMemory({
      config,
      parameters,
      rows,
      length,
      keep,
      precision: precision === 'int8' ? 'int8' : 'fp32',
      ...(devices !== undefined && { devices }),
    }),
  }
}

/** Encoders and decoders are trained by methods of their own, and not all of them whole. */
function refuseModel({ method, hyperparameters }: InspectRequest, checkpoint: Checkpoint): void {
  const { config, format } = checkpoint
  const isEncoder = config.encoder !== undefined
  if (isEncoder !== (methodOf(method).encoders === true)) {
    const kind = isEncoder ? 'an encoder' : 'no encoder'
    throw invalidRequest(
      `The method '${method}' does not train such a model: ${config.model_type} is ${kind}.`,
      { param: 'model', code: 'unsupported_model' },
    )
  }
  if (method === 'embedding' && (hyperparameters.lora?.dropout ?? 0) > 0)
    throw invalidRequest("Dropout is not supported with the method 'embedding'.", {
      param: `method.${method}.hyperparameters.lora.dropout`,
      code: 'unsupported_value',
    })
  const chosen = methodOf(method)
  if (hyperparameters.adapter !== 'none' || 'subject' in chosen) return
  const where = {
    param: `method.${method}.hyperparameters.adapter`,
    code: 'unsupported_value',
  }
  if (!chosen.whole)
    throw invalidRequest(`The method '${method}' trains an adapter, not all weights.`, where)
  if (!isTrainedWhole(checkpoint))
    throw invalidRequest(
      `All weights are trained only of models in Hugging Face's layout, and not of gpt2; this one is ${format === 'gguf' ? 'a GGUF file' : config.model_type}.`,
      where,
    )
}
