// What training knows of one row of a file: its tokens, and which of them are learned.

/** One encoded example. `weights[i]` is the loss weight of *predicting* `tokens[i]`; `weights[0]` is 0. */
export interface Example {
  /** 1-based line in the file it came from. */
  readonly line: number
  readonly tokens: Int32Array
  readonly weights: Float32Array
}

/** Something wrong with one line of a training file. */
export interface RowError {
  /** 1-based line number. */
  readonly line: number
  /** JSON pointer into the row, '' for the row itself. */
  readonly pointer: string
  /** A check's name, as OpenAI's cookbook and openai-surface.md name them. */
  readonly check: string
  readonly message: string
}

/** The row formats a file of purpose `fine-tune` may have. */
export type RowFormat =
  | 'chat'
  | 'completion'
  | 'text'
  | 'preference'
  | 'classification'
  | 'embedding'
