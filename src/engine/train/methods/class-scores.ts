// How well labels were told: accuracy and macro-F1, from what was and what was said. Pure.

/** What is counted of one label. */
interface Counts {
  hits: number
  said: number
  true: number
}

/** A label and where in its text it lies. */
export interface PlacedLabel {
  readonly label: string
  readonly place: string
}

/** Counts label by label; every answer is a set of labels, and so is the truth. */
export class ClassScores {
  readonly #labels = new Map<string, Counts>()
  #answers = 0
  #right = 0

  /** An answer is right as a whole where both sets are equal. */
  add(truth: readonly string[], said: readonly string[]): void {
    this.#answers++
    const both = truth.filter((label) => said.includes(label))
    if (both.length === truth.length && both.length === said.length) this.#right++
    for (const label of truth) this.#of(label).true++
    for (const label of said) this.#of(label).said++
    for (const label of both) this.#of(label).hits++
  }

  /** Spans of one text, right where label and place are; of its words so many were told as they are. */
  addSpans(
    truth: readonly PlacedLabel[],
    said: readonly PlacedLabel[],
    words: { answers: number; right: number },
  ): void {
    this.#answers += words.answers
    this.#right += words.right
    for (const { label } of truth) this.#of(label).true++
    for (const { label, place } of said) {
      const counts = this.#of(label)
      counts.said++
      if (truth.some((t) => t.label === label && t.place === place)) counts.hits++
    }
  }

  get accuracy(): number {
    return this.#answers === 0 ? 0 : this.#right / this.#answers
  }

  /** The mean of F1 over all labels that were true or said at least once, as scikit-learn has it. */
  get macroF1(): number {
    const all = [...this.#labels.values()]
    const sum = all.reduce((n, c) => n + (2 * c.hits) / (c.said + c.true), 0)
    return all.length === 0 ? 0 : sum / all.length
  }

  #of(label: string): Counts {
    const known = this.#labels.get(label)
    if (known) return known
    const fresh = { hits: 0, said: 0, true: 0 }
    this.#labels.set(label, fresh)
    return fresh
  }
}
