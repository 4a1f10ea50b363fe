// How much one key may ask of inference in a minute: buckets that fill evenly. Counts in this process alone; the clock
// is passed in.

import { ApiError } from '../../errors.ts'

export interface Limits {
  readonly requests_per_minute: number
  readonly tokens_per_minute: number
}

const KINDS = ['requests', 'tokens'] as const
type Kind = (typeof KINDS)[number]

/** What is left of a minute's allowance, as of a time in milliseconds. */
interface Bucket {
  left: number
  at: number
}

const MINUTE = 60_000

export class RateLimits {
  readonly #limits: Record<Kind, number>
  readonly #buckets = new Map<string, Record<Kind, Bucket>>()

  constructor(limits: Limits) {
    this.#limits = { requests: limits.requests_per_minute, tokens: limits.tokens_per_minute }
  }

  /**
   * Takes a request of about so many tokens from the key's allowance and tells the headers of its answer; throws
   * 429 where there is not enough. What is more than a whole minute's allowance is let through once a minute.
   */
  take(
    key_id: string,
    tokens: number,
    now: number,
  ): { headers: Record<string, string>; took: number } {
    const buckets = this.#filled(key_id, now)
    const wanted: Record<Kind, number> = {
      requests: 1,
      tokens: Math.min(tokens, this.#limits.tokens),
    }
    const short = KINDS.find((kind) => buckets[kind].left < wanted[kind])
    if (short) {
      const wait = (wanted[short] - buckets[short].left) / (this.#limits[short] / MINUTE)
      throw this.#refusal(short, wanted[short], Math.ceil(wait), buckets)
    }
    for (const kind of KINDS) buckets[kind].left -= wanted[kind]
    return { headers: this.#headers(buckets), took: wanted.tokens }
  }

  /** The request is over: what it took, and what it really used. */
  settle(key_id: string, { took, used }: { took: number; used: number }, now: number): void {
    const { tokens } = this.#filled(key_id, now)
    tokens.left = Math.min(tokens.left + took - used, this.#limits.tokens)
  }

  #filled(key_id: string, now: number): Record<Kind, Bucket> {
    let buckets = this.#buckets.get(key_id)
    if (!buckets) {
      const full = (kind: Kind) => ({ left: this.#limits[kind], at: now })
      buckets = { requests: full('requests'), tokens: full('tokens') }
      this.#buckets.set(key_id, buckets)
    }
    for (const kind of KINDS) {
      const bucket = buckets[kind]
      const gained = ((now - bucket.at) * this.#limits[kind]) / MINUTE
      bucket.left = Math.min(bucket.left + gained, this.#limits[kind])
      bucket.at = now
    }
    return buckets
  }

  #headers(buckets: Record<Kind, Bucket>): Record<string, string> {
    const headers: Record<string, string> = {}
    for (const kind of KINDS) {
      const limit = this.#limits[kind]
      const { left } = buckets[kind]
      headers[`x-ratelimit-limit-${kind}`] = String(limit)
      headers[`x-ratelimit-remaining-${kind}`] = String(Math.max(0, Math.floor(left)))
      headers[`x-ratelimit-reset-${kind}`] = goDuration(((limit - left) * MINUTE) / limit)
    }
    return headers
  }

  #refusal(kind: Kind, wanted: number, wait_ms: number, buckets: Record<Kind, Bucket>): ApiError {
    const limit = this.#limits[kind]
    const used = Math.min(limit, Math.ceil(limit - buckets[kind].left))
    const unit = kind === 'requests' ? 'requests per min (RPM)' : 'tokens per min (TPM)'
    return new ApiError(
      429,
      `Rate limit reached on ${unit}: Limit ${limit}, Used ${used}, Requested ${wanted}. Please try again in ${goDuration(wait_ms)}.`,
      {
        type: kind,
        code: 'rate_limit_exceeded',
        headers: {
          ...this.#headers(buckets),
          'retry-after': String(Math.ceil(wait_ms / 1000)),
          'retry-after-ms': String(wait_ms),
        },
      },
    )
  }
}

/** As Go writes a duration: `12ms`, `1s`, `6m0s`, `1h0m2.5s`. */
export const goDuration = (ms: number): string => {
  const whole = Math.ceil(ms)
  if (whole === 0) return '0s'
  if (whole < 1000) return `${whole}ms`
  const minutes = Math.floor(whole / MINUTE)
  const seconds = `${(whole % MINUTE) / 1000}s`
  if (minutes === 0) return seconds
  const hours = Math.floor(minutes / 60)
  return hours === 0 ? `${minutes}m${seconds}` : `${hours}h${minutes % 60}m${seconds}`
}
