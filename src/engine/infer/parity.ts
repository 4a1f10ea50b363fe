// The serving side of the parity check: the same rows through the path that answers requests take.

import {
  hashOfTemplate,
  judge,
  type RowAnswer,
  type RowEvidence,
  textDifference,
  type Verdict,
} from '../parity/parity.ts'
import type { TakeTurn } from '../runtime/thread.ts'
import { promptTokens } from './prompt.ts'
import type { CertifyRequest, GenerateRequest } from './request.ts'
import { type Exact, Residents } from './residents.ts'

/** A prompt is read in such pieces, as those of requests are. */
const PIECE = 128

/** Makes the target resident as a request would, reads the rows' prompts, and goes on with training's own tokens. */
export async function certify(
  residents: Residents,
  { target: wanted, evidence }: CertifyRequest,
  turn: TakeTurn,
): Promise<Verdict> {
  using lease = await residents.use(wanted)
  const { target } = lease
  const prompts = evidence.rows.map(({ prompt }) =>
    // A row's messages are what a client sends: they have been checked as such.
    promptTokens({ prompt: prompt as GenerateRequest['prompt'] }, target),
  )
  const template_sha256 = hashOfTemplate(target.checkpoint.chat_template)
  const difference = textDifference(evidence, { template_sha256, prompts })
  if (difference) return { difference }

  const V = target.checkpoint.config.vocab_size
  const resident: Exact = { decoder: target.batch.decoder, adapter: target.adapter }
  const served = await logitsOf(resident, evidence.rows, { turn, V })
  const answers: RowAnswer[] = []
  {
    await using exact = await residents.exact(wanted)
    const float = exact && (await logitsOf(exact, evidence.rows, { turn, V }))
    for (const [i, prompt] of prompts.entries())
      answers.push(
        float ? { prompt, logits: float[i]!, served: served[i]! } : { prompt, logits: served[i]! },
      )
  }
  return judge(evidence, { precision: Residents.precisionOf(target), answers }, V)
}

/** Of each row [count, V]: its beginning is read in pieces, what follows is decoded together, token by token. */
async function logitsOf(
  { decoder, adapter }: Exact,
  rows: readonly RowEvidence[],
  { turn, V }: { turn: TakeTurn; V: number },
): Promise<Float32Array[]> {
  const cache = decoder.newCache()
  const found = rows.map(({ logits }) => new Float32Array(logits.length))
  // The row that is decoded longest has the first slot, so that those that have ended lie behind it.
  const order = [...rows.keys()].sort((a, b) => found[b]!.length - found[a]!.length)
  for (const row of order) {
    const { tokens, from } = rows[row]!
    const slot = cache.open(tokens.length)
    let last: Float32Array | undefined
    for (let at = 0; at <= from; at += PIECE) {
      const piece = Array.from(tokens.subarray(at, Math.min(at + PIECE, from + 1)))
      using _turn = await turn()
      last = (await decoder.read(cache, slot, piece, { adapter })).at(-1)
    }
    found[row]!.set(last!)
  }
  for (let step = 1; ; step++) {
    const going = order.filter((row) => step * V < found[row]!.length)
    if (going.length === 0) return found
    using _turn = await turn()
    const logits = await decoder.decode(
      cache,
      going.map((row) => rows[row]!.tokens[rows[row]!.from + step]!),
      going.map(() => adapter),
    )
    for (const [i, row] of going.entries()) found[row]!.set(logits[i]!, step * V)
  }
}
