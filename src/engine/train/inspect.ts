// A job before it runs: are its files sound, what is in them, what will be done with them, and what that will take.

import { availableParallelism } from 'node:os'
import { invalidRequest } from '../../errors.ts'
import { lineSet } from '../curate/split.ts'
import { inspectFile } from '../datasets/inspect-file.ts'
import type { TakeTurn } from '../runtime/thread.ts'
import { openTokenizer } from '../tokenizer/tokenizer.ts'
import { type Checkpoint, openCheckpoint } from '../weights/checkpoint.ts'
import { isTrainedWhole } from '../weights/whole-model.ts'
import { forecastOf, type Speeds, speedsOf } from './forecast.ts'
import { methodOf } from './methods/index.ts'
import type { MethodEncoder } from './methods/method.ts'
import { isSmall, type PlanInput, resolvePlan, sequenceLimit, trainedParameters } from './plan.ts'
import type { Dataset, FileReport, Inspection, InspectRequest, Plan } from './request.ts'
import { longestOf } from './row-shape.ts'
import type { ExampleSizes } from './workload.ts'

/**
 * Checks every row of the files; with sound ones it also gives the plan and what it will take. Throws what is wrong with
 * the model. Touches a device only where a speed is to be measured, and takes `turn` for it.
 */
export async function inspect(
  request: InspectRequest,
  turn: TakeTurn = async () => ({ [Symbol.dispose]() {} }),
): Promise<Inspection> {
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
  ): Promise<{ report: FileReport; sizes: ExampleSizes; distinct: number }> => {
    const { truncation } = request.hyperparameters
    const { lengths, trained, distinct, ...report } = await inspectFile(path, {
      ...options,
      truncation,
      encoder,
      wanted,
      detailed: request.curation !== undefined,
      tell: (rows) => request.tell?.('reading rows as tokens', rows),
    })
    return { report, sizes: { lengths, trained }, distinct }
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
  if (!sound || training.sizes.lengths.length === 0) return inspection
  const { config } = checkpoint
  const compute = request.compute ?? { device: 'cpu' as const, threads: availableParallelism() }
  const measure = request.measure === 'large' ? !isSmall(config) : (request.measure ?? false)
  const input: PlanInput = {
    method,
    facts,
    hyperparameters: request.hyperparameters,
    config,
    ...training.sizes,
    distinct: training.distinct,
    longestValidation: validation ? longestOf(validation.sizes.lengths) : 0,
    memory: request.memory ?? process.availableMemory(),
    compute,
  }
  const measured = { checkpoint, cache: request.cache, measure }
  const plan = await pacedPlan(input, request.micro_step_seconds, (plan) =>
    speedsOf({ ...measured, plan }, turn),
  )
  const whole = plan.adapter === 'none'
  const parameters = trainedParameters(config, whole ? undefined : plan.lora, training.distinct)
  const forecast = await forecastOf(
    {
      ...measured,
      plan,
      parameters,
      reference: request.method === 'dpo',
      training: training.sizes,
      validation: validation?.sizes,
    },
    turn,
  )
  const { memory_bytes } = forecast
  return {
    ...inspection,
    plan: { ...plan, memory_bytes, ...(held_back !== undefined && { held_back }) },
    parameters,
    forecast,
  }
}

/** The plan, whose micro-batches take no longer than others can wait, as far as speeds are known. */
async function pacedPlan(
  input: PlanInput,
  seconds: number | undefined,
  speedsOf: (plan: Plan) => Promise<Speeds>,
): Promise<Plan> {
  const plan = resolvePlan(input)
  if (seconds === undefined) return plan
  const speeds = Object.entries(await speedsOf(plan)).map(([name, { paced }]) => [name, paced])
  return resolvePlan({ ...input, pace: { seconds, speeds: Object.fromEntries(speeds) } })
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
