// A decoder as what a job trains, every weight of it. For small ones: state and gradients are as large as the model.

import { invalidRequest } from '../../errors.ts'
import { input } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import { architectureOf } from '../models/index.ts'
import {
  bindTrained,
  cutTensor,
  gradientPlaces,
  type TrainedLayout,
  tensorRates,
  trainedFeeds,
  trainedLayout,
} from '../models/trained.ts'
import { weightsOf } from '../models/weights.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import { readMapped } from '../weights/mapped-tensor.ts'
import { openWholeModel, writeWholeModel } from '../weights/whole-model.ts'
import type { Objective } from './methods/method.ts'
import { hiddenRows, type StepGraphs, type StepShape } from './step.ts'
import type { Subject, SubjectSetup } from './subject.ts'

/** All weights of the model, for a method that sends its examples through such graphs. */
export function wholeSubject(
  measure: (shape: StepShape) => Objective['measure'],
  { checkpoint, weights, plan, initial }: SubjectSetup,
): Subject {
  const layout = trainedLayout(
    undefined,
    [...weights.tensors.values()].map(({ name, dims }) => ({ name, dims })),
  )
  const shape = { rows: plan.rows, length: plan.row_length }
  return {
    parameters: layout.parameters,

    async start() {
      const flat = new Float32Array(layout.parameters)
      const earlier = initial === undefined ? undefined : await openWholeModel(initial, checkpoint)
      if (initial !== undefined && !earlier)
        throw invalidRequest('A job that trains all weights does not go on from an adapter.', {
          param: 'model',
          code: 'invalid_value',
        })
      for (const place of layout.tensors) {
        const tensor = (earlier ? earlier.tensors : weights.tensors).get(place.name)
        if (!tensor) throw new Error(`initial model: no ${place.name}`)
        cutTensor(place, flat).set(await readMapped(tensor))
      }
      return flat
    },

    objective: {
      graphs: buildWholeStep(weights, layout, shape),
      measure: measure(shape),
      parameters: (flat) => trainedFeeds(layout, flat),
      gradients: (flat) => gradientPlaces(layout, flat),
    },

    tuned: {
      weights: () => weightsOf(weights, { trained: bindTrained(layout).tensors }),
      feeds: (flat) => trainedFeeds(layout, flat),
    },

    rates: tensorRates(layout),

    files: (flat) =>
      writeWholeModel(
        checkpoint,
        layout.tensors.map((place) => ({ ...place, data: cutTensor(place, flat) })),
      ),
  }
}

/**
 * Inputs and outputs as those of `buildStep`, but for the weights, which are inputs `trained.<name>`, and their
 * gradients `gradient.<name>`. The head's logits are kept whole, for its weight learns too.
 */
export function buildWholeStep(
  mapped: MappedWeights,
  layout: TrainedLayout,
  { rows: B, length: T }: StepShape,
): StepGraphs {
  const { config } = mapped
  const architecture = architectureOf(config)
  const positions = input('positions', 'int64', [B, T])
  const segments = input('segments', 'int64', [B, T])
  const index = input('index', 'int64', ['S'])
  const targets = input('targets', 'int64', ['S'])
  const weights = input('weights', 'float32', ['S'])

  const bound = bindTrained(layout)
  const model = weightsOf(mapped, { trained: bound.tensors })
  const tokens = input('tokens', 'int64', [B, T])
  const hidden = hiddenRows(mapped, model, { tokens, positions, segments }) // [N, D]
  const logits = op.linear(op.pick(hidden, index), architecture.head(model, config).get('weight')) // [S, V]
  const loss = op.crossEntropy(logits, targets, weights)
  const evaluate = {
    loss,
    correct: op.countCorrect(logits, targets, weights),
    losses: op.crossEntropies(logits, targets),
  }
  return {
    train: { ...evaluate, ...bound.gradients(loss) },
    evaluate,
    prepack: false,
  }
}
