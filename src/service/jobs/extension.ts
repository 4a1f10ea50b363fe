// `luthier` in a job's body: what is ours beside OpenAI's fields. As sent, and as kept.

import type { FindingName } from '../../engine/curate/findings.ts'

/** About the files. */
export interface DataOptions {
  /** So large a part of the training file is held back for validation. */
  validation_split?: number
  /** Fields of a row, or keys of its `metadata`, by which rows are counted. */
  groups?: string[]
  /** A file of inputs as they occur in production, without outputs. */
  reference_file?: string
  /** Findings that fail the job; true stands for all of them. */
  strict?: boolean | FindingName[]
}

/** About what becomes of the trained model. */
export interface PublishOptions {
  /** Which checkpoint bears the model's name. */
  checkpoint?: 'best' | 'final'
  /** By so much the loss on general text may grow; a model that grew more is not published. */
  max_regression?: number
  /** An eval that is run at each checkpoint. */
  eval?: string
}

export interface JobExtension {
  data?: DataOptions
  publish?: PublishOptions
}
