// Porter's stemmer ("An algorithm for suffix stripping", 1980) with the departures of nltk's PorterStemmer.

const IRREGULAR = new Map([
  ['skies', 'sky'],
  ['dying', 'die'],
  ['lying', 'lie'],
  ['tying', 'tie'],
  ['innings', 'inning'],
  ['outings', 'outing'],
  ['cannings', 'canning'],
  ...['sky', 'news', 'inning', 'outing', 'canning', 'howe', 'proceed', 'exceed', 'succeed'].map(
    (word) => [word, word] as const,
  ),
])

type Rule = readonly [suffix: string, replacement: string, when?: (stem: string) => boolean]

/** The stem of a word in lower case. */
export function stem(word: string): string {
  const irregular = IRREGULAR.get(word)
  if (irregular !== undefined) return irregular
  if ([...word].length <= 2) return word
  return [plural, pastOrGerund, finalY, doubled, derived, bare, finalE, finalL].reduce(
    (text, step) => step(text),
    word,
  )
}

/** For each letter whether it is a vowel: a, e, i, o, u, and y behind a consonant. */
function vowels(text: string): boolean[] {
  const flags: boolean[] = []
  for (const letter of text)
    flags.push('aeiou'.includes(letter) || (letter === 'y' && flags.length > 0 && !flags.at(-1)))
  return flags
}

/** The m of [C](VC)^m[V]. */
function measure(text: string): number {
  const flags = vowels(text)
  return flags.filter((vowel, i) => !vowel && i > 0 && flags[i - 1]).length
}

const some = (text: string) => measure(text) > 0
const several = (text: string) => measure(text) > 1
const endsInConsonant = (text: string) => vowels(text).at(-1) === false
const isDoubled = (text: string) =>
  text.length >= 2 && text.at(-1) === text.at(-2) && endsInConsonant(text)

/** Consonant, vowel, consonant that is not w, x or y; or vowel and consonant alone. */
function isShort(text: string): boolean {
  const flags = vowels(text)
  const [a, b, c] = flags.slice(-3)
  if (flags.length === 2) return a === true && b === false
  return flags.length > 2 && !a && b === true && c === false && !/[wxy]$/.test(text)
}

/** By the first rule whose suffix the word has; where its condition fails, nothing is changed. */
function replace(word: string, rules: readonly Rule[]): string {
  for (const [suffix, replacement, when] of rules) {
    if (!word.endsWith(suffix)) continue
    const rest = word.slice(0, word.length - suffix.length)
    return !when || when(rest) ? rest + replacement : word
  }
  return word
}

const plural = (word: string) =>
  replace(word, [
    ['sses', 'ss'],
    ['ies', word.length === 4 ? 'ie' : 'i'],
    ['ss', 'ss'],
    ['s', ''],
  ])

function pastOrGerund(word: string): string {
  if (word.endsWith('ied')) return word.slice(0, word.length === 4 ? -1 : -2)
  if (word.endsWith('eed')) return replace(word, [['eed', 'ee', some]])
  const rest = ['ed', 'ing']
    .filter((suffix) => word.endsWith(suffix))
    .map((suffix) => word.slice(0, -suffix.length))
    .find((text) => vowels(text).includes(true))
  if (rest === undefined) return word
  for (const ending of ['at', 'bl', 'iz']) if (rest.endsWith(ending)) return `${rest}e`
  if (isDoubled(rest)) return /[lsz]$/.test(rest) ? rest : rest.slice(0, -1)
  return measure(rest) === 1 && isShort(rest) ? `${rest}e` : rest
}

const finalY = (word: string) =>
  replace(word, [['y', 'i', (rest) => rest.length > 1 && endsInConsonant(rest)]])

const doubled = (word: string): string => {
  if (word.endsWith('alli') && some(word.slice(0, -4))) return doubled(word.slice(0, -2))
  return replace(word, [
    ['ational', 'ate', some],
    ['tional', 'tion', some],
    ['enci', 'ence', some],
    ['anci', 'ance', some],
    ['izer', 'ize', some],
    ['bli', 'ble', some],
    ['alli', 'al', some],
    ['entli', 'ent', some],
    ['eli', 'e', some],
    ['ousli', 'ous', some],
    ['ization', 'ize', some],
    ['ation', 'ate', some],
    ['ator', 'ate', some],
    ['alism', 'al', some],
    ['iveness', 'ive', some],
    ['fulness', 'ful', some],
    ['ousness', 'ous', some],
    ['aliti', 'al', some],
    ['iviti', 'ive', some],
    ['biliti', 'ble', some],
    ['fulli', 'ful', some],
    ['logi', 'log', (rest) => some(`${rest}l`)],
  ])
}

const derived = (word: string) =>
  replace(word, [
    ['icate', 'ic', some],
    ['ative', '', some],
    ['alize', 'al', some],
    ['iciti', 'ic', some],
    ['ical', 'ic', some],
    ['ful', '', some],
    ['ness', '', some],
  ])

const bare = (word: string) =>
  replace(word, [
    ...['al', 'ance', 'ence', 'er', 'ic', 'able', 'ible', 'ant', 'ement', 'ment', 'ent'].map(
      (suffix) => [suffix, '', several] as const,
    ),
    ['ion', '', (rest) => several(rest) && /[st]$/.test(rest)],
    ...['ou', 'ism', 'ate', 'iti', 'ous', 'ive', 'ize'].map(
      (suffix) => [suffix, '', several] as const,
    ),
  ])

const finalE = (word: string) =>
  replace(word, [['e', '', (rest) => several(rest) || (some(rest) && !isShort(rest))]])

const finalL = (word: string) =>
  word.endsWith('ll') && several(word.slice(0, -1)) ? word.slice(0, -1) : word
