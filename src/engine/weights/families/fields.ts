// The fields of a config.json, read with the file's name in every complaint.

export interface Fields {
  readonly raw: Readonly<Record<string, unknown>>
  /** A positive integer. */
  size(key: string, fallback?: number): number
  /** A positive number, wherever it was found. */
  positive(key: string, value: unknown): number
  /** True only where it says so. */
  flag(key: string, fallback?: boolean): boolean
  /** Refuses a field that says something else than `allowed`; one that is missing counts as `allowed`. */
  only(key: string, allowed: unknown): void
  refuse(message: string): never
}

/** Reads a parsed config.json; `where` opens every message. */
export function readFields(raw: Readonly<Record<string, unknown>>, where: string): Fields {
  const refuse = (message: string): never => {
    throw new Error(`${where}: ${message}`)
  }
  return {
    raw,
    refuse,
    size(key, fallback) {
      const value = raw[key] ?? fallback
      if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1)
        return refuse(`${key} is ${JSON.stringify(value)}, expected a positive integer`)
      return value
    },
    positive(key, value) {
      if (typeof value !== 'number' || !(value > 0) || !Number.isFinite(value))
        return refuse(`${key} is ${JSON.stringify(value)}, expected a positive number`)
      return value
    },
    flag: (key, fallback = false) => (raw[key] ?? fallback) === true,
    only(key, allowed) {
      const value = raw[key] ?? allowed
      if (value !== allowed) refuse(`${key} ${value} is not supported, only ${allowed}`)
    },
  }
}
