// Text ↔ token ids. One interface for tokenizer.json and for a GGUF's own vocabulary.

export interface Tokenizer {
  readonly vocab_size: number
  readonly bos_token_id: number | undefined
  /** Every id that ends a generation (eos_token_id may be a list; a chat model's end-of-turn is one of them). */
  readonly eos_token_ids: readonly number[]

  /** Text → ids. `special: true` adds what the model's post-processor adds (BOS); special tokens written in the text are parsed unless `parse_special: false`. */
  encode(text: string, options?: { special?: boolean; parse_special?: boolean }): number[]

  /** Ids → text, special tokens left out. */
  decode(ids: readonly number[]): string

  /**
   * The raw bytes one id stands for in running text (special tokens: empty).
   * Joined over a generation they are its UTF-8 text: a code point may lie across several ids.
   */
  bytes(id: number): Uint8Array
}
