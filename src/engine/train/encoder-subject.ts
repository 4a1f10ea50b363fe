// An encoder with its head as what a job trains: an adapter and the head, or every weight.

import { invalidRequest } from '../../errors.ts'
import type { TextShape } from '../datasets/text-batches.ts'
import type { TextExample } from '../datasets/text-example.ts'
import { adapterFromFlat, flatFromAdapter, initialAdapter, loraLayout } from '../models/adapters.ts'
import { setMagnitudes } from '../models/dora.ts'
import { encoderArchitectureOf } from '../models/encoders.ts'
import {
  cutTensor,
  gradientPlaces,
  type TrainedLayout,
  tensorRates,
  trainedFeeds,
  trainedLayout,
} from '../models/trained.ts'
import { normal } from '../random.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import type { Shapes } from '../weights/families/family.ts'
import { readMapped } from '../weights/mapped-tensor.ts'
import {
  type EncoderUse,
  readTunedEncoder,
  sameUse,
  writeTunedAdapter,
  writeTunedModel,
} from '../weights/tuned-encoder.ts'
import { loraRates } from './adapter-subject.ts'
import type { Objective } from './methods/method.ts'
import { learningRate } from './schedule.ts'
import type { Subject, SubjectSetup } from './subject.ts'

/** What a method makes of an encoder. */
export interface EncoderTask {
  readonly use: EncoderUse
  /** Tensors of a head that no checkpoint has, and of those that one may bring along. */
  head(weights: MappedWeights): { fresh: Shapes; given?: Shapes }
  objective(setup: EncoderObjectiveSetup): Pick<Objective, 'graphs' | 'measure'>
}

export interface EncoderObjectiveSetup {
  readonly weights: MappedWeights
  readonly layout: TrainedLayout
  readonly shape: TextShape
  /** Token ids as the graph wants them: rows of the embedding table that is trained. */
  readonly inTable: (tokens: Int32Array) => Int32Array
}

/** As Hugging Face initialises new layers. */
const INITIAL_DEVIATION = 0.02

/** Builds what is trained; `plan.adapter` decides between an adapter and all weights. */
export function encoderSubject(
  task: EncoderTask,
  { checkpoint, weights: all, plan, seed, examples, initial }: SubjectSetup,
): Subject {
  const { config } = all
  const { fresh, given = new Map() } = task.head(all)
  const isGiven = [...given.keys()].every((name) => all.tensors.has(name))
  const weights = usedWeights(all, isGiven ? given : new Map())
  const head: Shapes = new Map([...(isGiven ? [] : given), ...fresh])
  const whole = plan.adapter === 'none'

  const lora = whole ? undefined : loraLayout(weights, plan.lora)
  const table = `${encoderArchitectureOf(config).prefix}.embeddings.word_embeddings.weight`
  const rows = whole ? occurring(examples as readonly TextExample[]) : undefined
  const base = whole ? [...weights.tensors.values()] : []
  const layout = trainedLayout(lora, [
    ...base.map(({ name, dims }) =>
      name === table && rows ? { name, dims: [rows.length, dims[1]!], rows } : { name, dims },
    ),
    ...[...head].map(([name, dims]) => ({ name, dims })),
  ])
  const about = { use: task.use, checkpoint, config }
  const inTable = rows ? tableIndex(rows) : (tokens: Int32Array) => tokens

  return {
    parameters: layout.parameters,

    async start() {
      const flat = new Float32Array(layout.parameters)
      if (lora) {
        flat.set(initialAdapter(lora, seed))
        await setMagnitudes({ weights, layout: lora, threads: plan.threads }, flat)
      }
      for (const [i, place] of layout.tensors.entries()) {
        const part = cutTensor(place, flat)
        const mapped = head.has(place.name) ? undefined : weights.tensors.get(place.name)
        if (mapped) part.set(await readMapped(mapped, place.rows))
        else if (place.dims.length > 1)
          for (let k = 0; k < part.length; k++)
            part[k] = INITIAL_DEVIATION * normal(seed, HEAD_CHOICE + i, k)
      }
      if (initial !== undefined) await goOn(initial, { weights: all, layout, flat, use: task.use })
      return flat
    },

    objective: {
      ...task.objective({
        weights,
        layout,
        shape: { rows: plan.rows, length: plan.row_length, long: plan.long_rows },
        inTable,
      }),
      parameters: (flat) => trainedFeeds(layout, flat),
      gradients: (flat) => gradientPlaces(layout, flat),
    },

    encoder: { layout, inTable },

    rates: [...(lora ? loraRates(lora, plan.loraplus_lr_ratio ?? 1) : []), ...tensorRates(layout)],

    files(flat, step) {
      if (lora) {
        const adapter = adapterFromFlat(lora, flat, checkpoint.id)
        return writeTunedAdapter(about, adapter, wholeTensors(layout, flat))
      }
      // Rows that never occur have no gradient: what AdamW would do to them is decay alone.
      let kept = 1
      for (let s = 1; s <= step; s++) kept *= 1 - learningRate(s, plan) * plan.weight_decay
      return writeTunedModel({ ...about, base: all, initial, kept }, wholeTensors(layout, flat))
    },
  }
}

interface GoingOn {
  readonly weights: MappedWeights
  readonly layout: TrainedLayout
  readonly flat: Float32Array
  readonly use: EncoderUse
}

/** Fills the vector from the files of an earlier job of the same kind. */
async function goOn(initial: string, { weights, layout, flat, use }: GoingOn): Promise<void> {
  const tuned = await readTunedEncoder(initial, weights)
  sameUse(tuned.use, use)
  const { lora } = layout
  if ((tuned.type === 'adapter') !== (lora !== undefined))
    throw invalidRequest(
      'A job goes on from an adapter with an adapter, and from a whole model with one.',
      {
        param: 'model',
        code: 'invalid_value',
      },
    )
  if (tuned.type === 'adapter' && lora) flat.set(flatFromAdapter(lora, tuned.adapter))
  for (const place of layout.tensors) {
    const part = cutTensor(place, flat)
    if (tuned.type === 'adapter') {
      const saved = tuned.adapter.saved?.get(place.name)
      if (saved?.data.length !== part.length) throw new Error(`initial adapter: no ${place.name}`)
      part.set(saved.data)
    } else {
      const mapped = tuned.weights.tensors.get(place.name)
      if (!mapped) throw new Error(`initial model: no ${place.name}`)
      part.set(await readMapped(mapped, place.rows))
    }
  }
}

/** Draws of the adapter have choice 0, those of epochs 1 and more. */
const HEAD_CHOICE = 2 ** 20

/** The tensors of the base that the task computes with: no head that a checkpoint brings along, no pooler without use. */
function usedWeights(all: MappedWeights, given: Shapes): MappedWeights {
  const prefix = `${encoderArchitectureOf(all.config).prefix}.`
  const used = [...all.tensors].filter(
    ([name]) => given.has(name) || (name.startsWith(prefix) && !name.includes('.pooler.')),
  )
  return { ...all, tensors: new Map(used) }
}

/** Every token id that the job will ever read, and 0, which fills unused places. */
function occurring(examples: readonly TextExample[]): Int32Array {
  const ids = new Set<number>([0])
  for (const { tokens } of examples) for (const id of tokens) ids.add(id)
  return Int32Array.from(ids).sort()
}

function tableIndex(rows: Int32Array): (tokens: Int32Array) => Int32Array {
  const index = new Map([...rows].map((id, i) => [id, i]))
  return (tokens) => tokens.map((id) => index.get(id)!)
}

const wholeTensors = (layout: TrainedLayout, flat: Float32Array) =>
  layout.tensors.map((place) => ({ ...place, data: cutTensor(place, flat) }))
