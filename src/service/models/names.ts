// How tuned models and checkpoints are called.

/** `ft:<model as sent>:<organization>:<suffix>:<8 characters>`. */
export const tunedModelName = (
  model: string,
  organization: string,
  suffix: string | null,
  id: string,
): string => `ft:${model}:${organization}:${nameable(suffix ?? '')}:${id}`

/** What a tuned model or a checkpoint was tuned from at first: the `<model as sent>` in its name. */
export const baseOfTunedName = (name: string): string =>
  /^ft:(.+):[^:]+:[^:]*:[^:]+$/.exec(name.replace(/:ckpt-step-\d+$/, ''))?.[1] ?? name

/** A checkpoint that is not the tuned model itself. */
export const checkpointName = (tuned_model: string, step: number): string =>
  `${tuned_model}:ckpt-step-${step}`

/** The tuned model whose newest checkpoint is meant by `…:live`, also while it is still trained. */
export const tunedModelOfLive = (name: string): string | undefined =>
  name.endsWith(LIVE) ? name.slice(0, -LIVE.length) : undefined

const LIVE = ':live'

// A colon would move the name's parts, a slash or a space would not survive a path.
const nameable = (suffix: string) => suffix.replace(/[^\p{L}\p{N}._-]+/gu, '-')
