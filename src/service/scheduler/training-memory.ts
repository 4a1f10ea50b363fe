// Which jobs train at once, by memory: each is let in when what is forecast of it fits beside those that run. Pure bookkeeping.

export interface Reserved extends Disposable {}

export class TrainingMemory {
  /** Bytes that training may take in all. */
  readonly total: number
  #taken = 0
  readonly #waiting: { bytes: number; enter: () => void }[] = []

  constructor(total: number) {
    this.total = total
  }

  /**
   * Waits until so much is free, in the order of the calls: a large job is not passed by smaller ones for ever. What is
   * larger than the total enters alone. Throws the signal's reason when it is aborted.
   */
  async reserve(bytes: number, signal: AbortSignal): Promise<Reserved> {
    signal.throwIfAborted()
    await new Promise<void>((resolve, reject) => {
      const place = { bytes, enter: resolve }
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(place), 1)
        this.#admit()
        reject(signal.reason)
      }
      place.enter = () => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      this.#waiting.push(place)
      signal.addEventListener('abort', leave, { once: true })
      this.#admit()
    })
    let held = true
    return {
      [Symbol.dispose]: () => {
        if (!held) return
        held = false
        this.#taken -= bytes
        this.#admit()
      },
    }
  }

  #admit(): void {
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      if (this.#taken > 0 && this.#taken + next.bytes > this.total) return
      this.#waiting.shift()
      this.#taken += next.bytes
      next.enter()
    }
  }
}
