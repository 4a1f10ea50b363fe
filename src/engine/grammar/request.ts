// What the grammar thread is asked, and how masks come back: through shared memory, so that a token need wait for no event loop.

/** What an answer must be: JSON of a schema, or text with tagged JSON in it. */
export interface GrammarSource {
  readonly type: 'json_schema' | 'structural_tag'
  /** The schema as JSON, prepared by `prepareSchema`; or a structural tag of the library. */
  readonly text: string
  /** The client's field that it came from, for an error about it. */
  readonly param: string
}

export type GrammarRequest =
  /** Each token as its bytes in GPT-2's alphabet; special tokens are empty. */
  | { type: 'vocabulary'; key: string; tokens: string[]; eos_token_ids: readonly number[] }
  | { type: 'compile'; key: string; source: GrammarSource }
  | { type: 'open'; key: string; source: GrammarSource; id: number; memory: SharedArrayBuffer }
  | { type: 'accept'; id: number; token: number }
  | { type: 'close'; id: number }

export type GrammarEvent =
  /** A schema's turn has come; `place` is where the thread's time is told. */
  | { type: 'begun'; place: string | undefined }
  | { type: 'known'; known: boolean }
  | { type: 'done' }

/** Before the mask: how many masks were written, and whether the last token was refused. */
export const COUNT = 0
export const REFUSED = 1
export const HEAD = 2
