// A job before it runs: are its files sound, what is in them, and what will be done with them. Only a machine's speed,
// where it is not known yet, is measured on its devices.

import { availableParallelism } from 'node:os'
import { invalidRequest } from '../../errors.ts'
import { inspectFile } from '../datasets/inspect-file.ts'
import { openTokenizer } from '../tokenizer/tokenizer.ts'
import { type Checkpoint, openCheckpoint } from '../weights/checkpoint.ts'
import { isTrainedWhole } from '../weights/whole-model.ts'
import { forecastJob } from './forecast-job.ts'
import { methodOf } from './methods/index.ts'
import type { MethodEncoder } from './methods/method.ts'
import { resolvePlan, sequenceLimit } from './plan.ts'
import type { Dataset, FileReport, Inspection, InspectRequest } from './request.ts'
import { throughputOf } from './throughput.ts'

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
  ): Promise<{ report: FileReport; lengths: Int32Array }> => {
    const { truncation } = request.hyperparameters
    const { lengths, ...report } = await inspectFile(path, { ...options, truncation, encoder })
    return { report, lengths }
  }
  const encoder = method.encoder(options)
  const training = await look(request.training, encoder)
  const facts = encoder.facts?.()
  const validation =
    request.validation && (await look(request.validation, method.encoder(options, facts)))

  const inspection: Inspection = {
    type: 'inspected',
    training: training.report,
    ...(validation && { validation: validation.report }),
  }
  const sound = [training, validation].every((f) => !f || f.report.error_count === 0)
  if (!sound || training.lengths.length === 0) return inspection
  const { config } = checkpoint
  const { lengths } = training
  const compute = request.compute ?? { device: 'cpu', threads: availableParallelism() }
  const plan = resolvePlan({
    method,
    facts,
    hyperparameters: request.hyperparameters,
    config,
    lengths,
    trained_tokens: training.report.trained_tokens,
    longestValidation: validation?.lengths.reduce((a, b) => Math.max(a, b), 0) ?? 0,
    memory: process.availableMemory(),
    compute,
  })
  if (request.cache === undefined) return { ...inspection, plan }
  const throughput = await throughputOf(compute, request.cache)
  const { trained_tokens } = training.report
  const forecast = forecastJob({ method, config, plan, lengths, trained_tokens, throughput })
  return { ...inspection, plan: { ...plan, forecast } }
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
