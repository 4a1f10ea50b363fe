// Where the micro-batches of a job run: a session in this thread, or one in a thread for each of several devices, whose
// gradients are summed here, in the order of the micro-batches. So the sum is the same, however many devices there are.

import { encodeOnnx } from '../graph/onnx.ts'
import { capabilitiesOf, type DeviceKind } from '../runtime/device.ts'
import { createSession, type Session } from '../runtime/session.ts'
import { spawn, type TakeTurn } from '../runtime/thread.ts'
import { float32 } from '../tensor.ts'
import type { LaneEvent, LaneRequest, Place } from './lane-request.ts'
import type { Feeds, Objective, Outputs } from './methods/method.ts'

export interface LaneOptions {
  readonly objective: Pick<Objective, 'graphs' | 'parameters' | 'gradients'>
  /** Of each device. */
  readonly threads: number
  /** Of which kind each is. */
  readonly device: DeviceKind
  readonly devices: number
  readonly turn: TakeTurn
  /** The trained vector; what is in it when a step begins is what all its runs see. */
  readonly parameters: Float32Array
  /** Where the gradients of a step are summed. */
  readonly sum: Float32Array
}

export interface Lanes extends AsyncDisposable {
  /** Runs that may be under way at once. */
  readonly width: number
  /** A step or an evaluation begins: the trained vector may have changed. */
  begin(): void
  /** Runs the training graph; the first after `begin` sets `sum`, every other adds to it, in the order of the calls. */
  train(feeds: Feeds): Promise<Outputs>
  evaluate(feeds: Feeds, signal?: AbortSignal): Promise<Outputs>
}

export const openLanes = (options: LaneOptions): Promise<Lanes> =>
  options.devices > 1 ? openThreads(options) : openHere(options)

/** The graphs as the device can compute them. */
function encoded({ objective, device }: LaneOptions) {
  const { without } = capabilitiesOf(device)
  const { train, evaluate } = objective.graphs
  return { train: encodeOnnx(train, without), evaluate: () => encodeOnnx(evaluate, without) }
}

const whole = (flat: Float32Array) => float32([flat.length], flat)

/** The trained vector, or a vector of gradients, as the graphs know it: over its own memory. */
const parametersIn = ({ objective }: LaneOptions, flat: Float32Array): Feeds =>
  objective.parameters?.(flat) ?? { adapter: whole(flat) }
const gradientsIn = ({ objective }: LaneOptions, flat: Float32Array): Feeds =>
  objective.gradients?.(flat) ?? { gradient: whole(flat) }

async function openHere(options: LaneOptions): Promise<Lanes> {
  const { device, threads, turn, sum, parameters } = options
  const graphs = encoded(options)
  const { prepack } = options.objective.graphs
  const trainSession = await createSession(graphs.train, { device, threads, prepack })
  let evaluateSession: Session | undefined
  const trained = parametersIn(options, parameters)
  const sumPlaces = gradientsIn(options, sum)
  let part: { flat: Float32Array; places: Feeds } | undefined
  let isFirst = true

  return {
    width: 1,
    begin() {
      isFirst = true
    },
    /** The first run of a step writes its gradient where the sum is kept, the others beside it. */
    async train(feeds) {
      const first = isFirst
      isFirst = false
      if (!first && !part) {
        const flat = new Float32Array(sum.length)
        part = { flat, places: gradientsIn(options, flat) }
      }
      using _turn = await turn()
      const outputs = await trainSession.run(
        { ...feeds, ...trained },
        first ? sumPlaces : part!.places,
      )
      if (!first) addTo(sum, part!.flat)
      return outputs
    },
    async evaluate(feeds, signal) {
      signal?.throwIfAborted()
      evaluateSession ??= await createSession(graphs.evaluate(), { device, threads })
      using _turn = await turn()
      return evaluateSession.run({ ...feeds, ...trained })
    },
    async [Symbol.asyncDispose]() {
      await trainSession[Symbol.asyncDispose]()
      await evaluateSession?.[Symbol.asyncDispose]()
    },
  }
}

const ENTRY = new URL('./lane-worker.ts', import.meta.url)

async function openThreads(options: LaneOptions): Promise<Lanes> {
  const { device, devices, threads, turn, sum, parameters } = options
  const graphs = encoded(options)
  const evaluate = graphs.evaluate()
  const shared = new SharedArrayBuffer(parameters.byteLength)
  const lanes = await Promise.all(
    Array.from({ length: devices }, async (_, place) => {
      const gradient = new SharedArrayBuffer(sum.byteLength)
      const thread = spawn<LaneRequest, LaneEvent>(ENTRY)
      const ask = async (request: LaneRequest): Promise<Outputs> => {
        for await (const event of thread.run(request)) return event.outputs
        throw new Error('A device has not answered.')
      }
      await ask({
        type: 'open',
        train: graphs.train,
        evaluate,
        prepack: options.objective.graphs.prepack,
        compute: { device, threads },
        parameters: { memory: shared, places: placesOf(parametersIn(options, parameters)) },
        gradient: { memory: gradient, places: placesOf(gradientsIn(options, sum)) },
      })
      return {
        thread,
        gradient: new Float32Array(gradient),
        /** Its last run, and that what came of it is no longer needed. */
        free: Promise.resolve() as Promise<unknown>,
        async run(type: 'train' | 'evaluate', feeds: Feeds): Promise<Outputs> {
          using _turn = await turn({ place })
          return ask({ type, feeds })
        },
      }
    }),
  )
  let trained = 0
  let evaluated = 0
  let summed: Promise<unknown> = Promise.resolve()

  return {
    width: devices,
    begin() {
      new Float32Array(shared).set(parameters)
      trained = 0
      summed = Promise.resolve()
    },
    train(feeds) {
      const turnOf = trained++
      const lane = lanes[turnOf % devices]!
      const before = summed
      const outputs = lane.free.then(() => lane.run('train', feeds))
      const done = outputs.then(async (outputs) => {
        await before
        if (turnOf === 0) sum.set(lane.gradient)
        else addTo(sum, lane.gradient)
        return outputs
      })
      lane.free = done.catch(() => {})
      summed = done
      return done
    },
    evaluate(feeds, signal) {
      const lane = lanes[evaluated++ % devices]!
      const done = lane.free.then(() => {
        signal?.throwIfAborted()
        return lane.run('evaluate', feeds)
      })
      lane.free = done.catch(() => {})
      return done
    },
    async [Symbol.asyncDispose]() {
      for (const lane of lanes) await lane.free
      for (const lane of lanes) await lane.thread[Symbol.asyncDispose]()
    },
  }
}

function addTo(sum: Float32Array, part: Float32Array): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += part[i]!
}

/** Where each tensor lies in the vector whose memory it shares. */
const placesOf = (feeds: Feeds): Place[] =>
  Object.entries(feeds).map(([name, { dims, data }]) => ({
    name,
    dims,
    from: data.byteOffset / Float32Array.BYTES_PER_ELEMENT,
    length: data.length,
  }))
