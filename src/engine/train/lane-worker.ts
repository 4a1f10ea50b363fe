// The entry of one device's thread in a job over several: holds the sessions, runs what it is given.

import { createSession, type Session } from '../runtime/session.ts'
import { serve } from '../runtime/thread.ts'
import { float32 } from '../tensor.ts'
import type { LaneEvent, LaneRequest, OpenLaneRequest, SharedVector } from './lane-request.ts'
import type { Feeds, Outputs } from './methods/method.ts'

let lane: Awaited<ReturnType<typeof open>> | undefined

/** Sessions read and write memory of their own: the runtime takes no shared one. */
async function open({ train, evaluate, prepack, compute, ...shared }: OpenLaneRequest) {
  const vector = ({ memory, places }: SharedVector) => {
    const flat = new Float32Array(memory.byteLength / Float32Array.BYTES_PER_ELEMENT)
    const tensors: Feeds = Object.fromEntries(
      places.map(({ name, dims, from, length }) => [
        name,
        float32(dims, flat.subarray(from, from + length)),
      ]),
    )
    return { shared: new Float32Array(memory), flat, tensors }
  }
  const trained = vector(shared.parameters)
  const gradients = vector(shared.gradient)
  const trainSession = await createSession(train, { ...compute, prepack })
  let evaluateSession: Session | undefined

  return {
    async train(feeds: Feeds): Promise<Outputs> {
      trained.flat.set(trained.shared)
      const outputs = await trainSession.run({ ...feeds, ...trained.tensors }, gradients.tensors)
      gradients.shared.set(gradients.flat)
      const told = Object.entries(outputs).filter(([name]) => !(name in gradients.tensors))
      return Object.fromEntries(told)
    },
    async evaluate(feeds: Feeds): Promise<Outputs> {
      trained.flat.set(trained.shared)
      evaluateSession ??= await createSession(evaluate, compute)
      return evaluateSession.run({ ...feeds, ...trained.tensors })
    },
  }
}

serve<LaneRequest, LaneEvent>(async function* (request) {
  if (request.type === 'open') {
    lane = await open(request)
    yield { outputs: {} }
    return
  }
  if (!lane) throw new Error('A device is asked to run before it was opened.')
  yield { outputs: await lane[request.type](request.feeds) }
})
