// The learning rate of each step.

export interface ScheduleOptions {
  readonly learning_rate: number
  readonly lr_schedule: 'linear' | 'cosine' | 'constant'
  readonly warmup_steps: number
  readonly total_steps: number
}

/**
 * The rate of step 1 … total: rises in equal parts to the peak over `warmup_steps`, then falls to nothing
 * just after the last step (linear or by half a cosine), or stays.
 */
export function learningRate(step: number, options: ScheduleOptions): number {
  const { learning_rate: peak, warmup_steps: warmup, total_steps: total } = options
  if (step <= warmup) return (peak * step) / warmup
  const left = (total - step + 1) / (total - warmup)
  switch (options.lr_schedule) {
    case 'linear':
      return peak * left
    case 'cosine':
      return (peak * (1 - Math.cos(Math.PI * left))) / 2
    case 'constant':
      return peak
    default:
      return options.lr_schedule satisfies never
  }
}
