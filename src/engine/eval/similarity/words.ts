// How a text is cut into words where the metric's authors leave it open.

/** Runs of letters, digits and underscores, and runs of other signs: nltk's wordpunct_tokenize. */
export const wordsAndSigns = (text: string): string[] =>
  text.match(/[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]+/gu) ?? []

/** Runs of letters and digits of any script, in lower case. */
export const plainWords = (text: string): string[] =>
  text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []
