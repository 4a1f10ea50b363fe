// Stop texts in a stream of text: what may be shown now, and when to end. Knows strings only.

export interface Stops {
  readonly texts: readonly string[]
  /** The end of the text so far that may still become a stop text. */
  held: string
  hit: boolean
}

/** Empty stop texts are left out: they would end everything before it begins. */
export const createStops = (texts: readonly string[]): Stops => ({
  texts: texts.filter((text) => text !== ''),
  held: '',
  hit: false,
})

/**
 * Takes the next piece of text and gives what may be shown. The stop text that is complete first
 * counts, however the text was cut into pieces; neither it nor what follows is ever given.
 */
export function passStops(stops: Stops, piece: string): string {
  if (stops.hit) return ''
  const text = stops.held + piece
  let start = -1
  let end = Number.POSITIVE_INFINITY
  for (const stop of stops.texts) {
    const at = text.indexOf(stop)
    if (at < 0 || at + stop.length > end) continue
    if (at + stop.length < end || at < start) start = at
    end = at + stop.length
  }
  if (start >= 0) {
    stops.hit = true
    stops.held = ''
    return text.slice(0, start)
  }
  const hold = Math.max(0, ...stops.texts.map((stop) => overlap(text, stop)))
  stops.held = text.slice(text.length - hold)
  return text.slice(0, text.length - hold)
}

/** The text has ended: gives what was held back. */
export function flushStops(stops: Stops): string {
  const { held } = stops
  stops.held = ''
  return held
}

/** Length of the longest end of `text` that is a true beginning of `stop`. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--)
    if (text.endsWith(stop.slice(0, length))) return length
  return 0
}
