// What a job's events say, word for word as clients of the API match them; and which steps are told.

import type { StepMetrics } from '../../engine/train/request.ts'

/** Clients search these with regular expressions: nothing here may be reworded. */
export const eventText = {
  created: (job_id: string) => `Created fine-tuning job: ${job_id}`,
  validating: (training_file: string, validation_file: string | null) =>
    validation_file === null
      ? `Validating training file: ${training_file}`
      : `Validating training file: ${training_file} and validation file: ${validation_file}`,
  validated: () => 'Files validated, moving job to queued state',
  started: () => 'Fine-tuning job started',
  checkpoint: (step: number, name: string) =>
    `Checkpoint created at step ${step} with Snapshot ID: ${name}`,
  /** Ours. */
  scored: (step: number, score: number) => `Step ${step}: eval score=${score.toFixed(4)}`,
  uncompared: (reason: string) =>
    `The model was not held against how it is served: ${reason}. It is published all the same.`,
  modelCreated: (name: string) => `New fine-tuned model created: ${name}`,
  succeeded: () => 'The job has successfully completed',
  cancelled: () => 'Job cancelled',
  paused: () => 'Job paused',
  resumed: () => 'Job resumed',
}

/** `Step 60/200: training loss=0.73, validation loss=1.46`, with what of it was measured. */
export function stepText(metrics: StepMetrics): string {
  const parts = [`training loss=${metrics.train_loss.toFixed(2)}`]
  if (metrics.valid_loss !== undefined)
    parts.push(`validation loss=${metrics.valid_loss.toFixed(2)}`)
  if (metrics.full_valid_loss !== undefined)
    parts.push(`full validation loss=${metrics.full_valid_loss.toFixed(2)}`)
  return `Step ${metrics.step}/${metrics.total_steps}: ${parts.join(', ')}`
}

/** `data` of a metrics event: what was measured, under the names of the API. */
export function stepData(metrics: StepMetrics): Record<string, number> {
  const { epoch: _, learning_rate: __, grad_norm: ___, ...told } = metrics
  return told as Record<string, number>
}

/** `metrics` of a checkpoint: as an event's data, without the total. */
export function checkpointMetrics(metrics: StepMetrics): Record<string, number> {
  const { total_steps: _, ...told } = stepData(metrics)
  return told as Record<string, number>
}

/** Which checkpoint became the model, where it is not the last step's. */
export function publishedText(
  { step_number, metrics }: { step_number: number; metrics: Record<string, number> },
  last: StepMetrics | undefined,
  last_score?: number,
): { message: string; data: Record<string, unknown> } {
  const { full_valid_loss, eval_score } = metrics
  if (eval_score !== undefined)
    return {
      message: `Published the checkpoint of step ${step_number}: its eval score is ${eval_score.toFixed(4)}, where that of the last step is ${last_score?.toFixed(4)}`,
      data: { kind: 'published', step: step_number, eval_score },
    }
  const lowest = full_valid_loss?.toFixed(4)
  const at = last?.full_valid_loss?.toFixed(4)
  const rather = at && last ? `, where that of step ${last.step} is ${at}` : ''
  return {
    message: `Published the checkpoint of step ${step_number}: its validation loss is ${lowest}${rather}`,
    data: { kind: 'published', step: step_number, full_valid_loss },
  }
}

const EVENTS = 200

/** Every step up to 200 in all; beyond that 200 evenly spaced, the last always among them. */
export const isTold = (step: number, total_steps: number): boolean =>
  total_steps <= EVENTS ||
  Math.floor((step * EVENTS) / total_steps) > Math.floor(((step - 1) * EVENTS) / total_steps)
