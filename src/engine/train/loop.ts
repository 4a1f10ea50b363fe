// The training loop, an async generator on one page: says what happened, persists nothing.

import { invalidRequest } from '../../errors.ts'
import { lineSet } from '../curate/split.ts'
import { encodeFile } from '../datasets/encode.ts'
import type { Example } from '../datasets/example.ts'
import { withInt8 } from '../models/int8.ts'
import { uniform } from '../random.ts'
import { capabilitiesOf } from '../runtime/device.ts'
import type { HandlerContext } from '../runtime/thread.ts'
import { openTokenizer } from '../tokenizer/tokenizer.ts'
import { openCheckpoint } from '../weights/checkpoint.ts'
import { mapWeights } from '../weights/mapped.ts'
import { createEncoderProbe, probeExamples } from './encoder-probe.ts'
import { settledPrecision } from './kept-choice.ts'
import { freshScale } from './loss-scale.ts'
import { methodOf } from './methods/index.ts'
import { createMoments } from './optimizer.ts'
import { choosePrecision, keptPrecision, type TrainPrecision } from './precision.ts'
import { createProbe } from './probe.ts'
import type { RowLosses, StepMetrics, TrainEvent, TrainRequest } from './request.ts'
import { decodeState, encodeState } from './save.ts'
import { learningRate } from './schedule.ts'
import { bestEpoch, isExhausted } from './stopping.ts'
import type { Subject } from './subject.ts'
import { subjectOf } from './subject-of.ts'
import { watchSteps } from './throughput.ts'
import { createTrainer, type TrainState } from './trainer.ts'

/** A lost process may cost so many seconds of training. */
const SECONDS_AT_RISK = 60
/** Keeping the state may cost so much of the time. */
const SAVE_SHARE = 0.03
/** Examples that `precision: auto` is tried on, at most. */
const TRIAL_EXAMPLES = 16

/**
 * Trains from the beginning or from `request.state` on; the same request gives the same bytes either way.
 * An abort ends it after the micro-batches under way, with `stopped` and a last `state`, and without `done`.
 */
export async function* train(
  request: TrainRequest,
  { signal, turn }: HandlerContext,
): AsyncGenerator<TrainEvent, void, undefined> {
  const { plan, seed } = request

  // What is trained, on what.
  const checkpoint = await openCheckpoint(request.model)
  const weights = await mapWeights(checkpoint, request.cache)
  const tokenizer = await openTokenizer(checkpoint)
  const method = methodOf(request.method)
  const { chat_template } = checkpoint
  const { max_sequence_length } = plan
  const encode = (path: string, wanted?: (line: number) => boolean) =>
    encodeFile(
      path,
      method.encoder({ tokenizer, chat_template, max_sequence_length }, plan.facts ?? {}),
      plan.truncation,
      wanted,
    )
  const isHeld = plan.held_back === undefined ? undefined : lineSet(plan.held_back)
  const examples = await encode(request.training.path, isHeld && ((line) => !isHeld(line)))
  const other = isHeld ? request.training : request.validation
  const validation = other ? await encode(other.path, isHeld) : []
  const { initial } = request
  // An encoder that is trained whole trains the tokens that it will ever read, those of the probe among them.
  const general =
    request.probe && checkpoint.config.encoder ? probeExamples(tokenizer, weights) : []
  const known = [...examples, ...validation, ...general]
  const subjectIn = async (precision: TrainPrecision) => {
    const given =
      precision === 'int8'
        ? await withInt8(weights, request.cache, tokenizer)
        : { ...weights, half: precision === 'fp16' }
    return subjectOf(method, {
      checkpoint,
      weights: given,
      plan,
      seed,
      initial,
      examples: known,
    })
  }
  const open = async (subject: Subject, state: TrainState, taking = turn) =>
    createTrainer(state, {
      objective: subject.objective,
      threads: plan.threads,
      device: plan.device,
      devices: plan.devices,
      weightDecay: plan.weight_decay,
      maxGradNorm: plan.max_grad_norm,
      rates: subject.rates,
      seed,
      turn: taking,
    })
  const afresh = async (subject: Subject, precision: TrainPrecision): Promise<TrainState> => ({
    step: 0,
    adapter: await subject.start(),
    moments: createMoments(subject.parameters),
    ...(precision === 'fp16' && { loss_scale: freshScale }),
  })
  const { device = 'cpu' } = plan
  let lastTried: Subject | undefined
  const tried =
    plan.precision === 'auto'
      ? await settledPrecision({ ...request, checkpoint }, () =>
          choosePrecision({
            lower: capabilitiesOf(device).precisions.find((one) => one !== 'fp32') ?? 'int8',
            // Elsewhere it is not the processor that computes.
            ...(device !== 'cpu' && { clock: () => performance.now() / 1000 }),
            open: async (precision, taking) => {
              lastTried = await subjectIn(precision)
              return open(lastTried, await afresh(lastTried, precision), taking)
            },
            turn,
            examples: examples.slice(0, Math.min(plan.batch_size, TRIAL_EXAMPLES)),
            shape: plan,
          }),
        )
      : undefined
  await using kept = tried?.trainer
  if (tried) yield { type: 'precision', ...tried.choice }
  const precision = plan.precision === 'auto' ? tried!.choice.precision : plan.precision
  const subject = kept ? lastTried! : await subjectIn(precision)

  // Where it starts.
  const saved = request.state && decodeState(request.state, subject.parameters)
  const state = saved?.state ?? kept?.state ?? (await afresh(subject, precision))
  // A trial may have come to another scale; who goes on without one has this.
  if (!saved && state.loss_scale) state.loss_scale = freshScale
  let trained_tokens = saved?.trained_tokens ?? 0
  let unvalidated = saved?.unvalidated
  const valid_losses = [...(saved?.valid_losses ?? [])]
  const ledger = createLedger()

  const { tuned, encoder } = subject
  await using probe = !request.probe
    ? undefined
    : tuned
      ? createProbe({ weights, tuned, tokenizer, plan, turn })
      : encoder && createEncoderProbe({ weights, tuned: encoder, texts: general, plan, turn })
  await using opened = kept?.state === state ? undefined : await open(subject, state)
  const trainer = opened ?? kept!
  const watch = watchSteps(
    { checkpoint, cache: request.cache, plan, precision },
    {
      ...plan,
      config: checkpoint.config,
      parameters: subject.parameters,
      precision: keptPrecision(precision),
      reference: request.method === 'dpo',
    },
  )
  const save = (): TrainEvent => ({
    type: 'state',
    step: state.step,
    state: encodeState({ state, trained_tokens, unvalidated, valid_losses }),
    losses: ledger.take(),
  })
  const files = async () => subject.files(state.adapter, state.step)
  yield { type: 'started', step: state.step, total_steps: plan.total_steps }

  const stepsPerEpoch = plan.total_steps / plan.n_epochs
  const validateEvery = Math.max(1, Math.ceil(plan.total_steps / 20))
  let lastSave = performance.now()
  let order: { epoch: number; examples: Example[] } | undefined
  const { early_stopping } = plan
  const { scores } = request
  const losses = () =>
    early_stopping?.metric === 'eval_score' ? (scores ?? []).map((score) => -score) : valid_losses
  const isEnough = () => early_stopping !== undefined && isExhausted(losses(), early_stopping)

  /** One step on the next batch: an epoch's order depends on the seed and the epoch alone. */
  const update = async (): Promise<StepMetrics> => {
    const epoch = Math.floor(state.step / stepsPerEpoch)
    if (order?.epoch !== epoch) order = { epoch, examples: shuffle(examples, seed, epoch) }
    const from = (state.step % stepsPerEpoch) * plan.batch_size
    const batch = order.examples.slice(from, from + plan.batch_size)
    const rate = learningRate(state.step + 1, plan)
    const began = performance.now()
    const { loss, losses, tokens, scores, gradNorm } = await trainer.step(batch, rate)
    if (!watch.done) await watch.step(batch, (performance.now() - began) / 1000)
    if (!Number.isFinite(loss + gradNorm)) throw diverged(state.step)
    trained_tokens += tokens
    ledger.note(epoch + 1, batch, losses)
    return {
      step: state.step,
      total_steps: plan.total_steps,
      epoch: epoch + 1,
      train_loss: loss,
      ...prefixed('train', scores),
      learning_rate: rate,
      grad_norm: gradNorm,
      ...(state.loss_scale && { loss_scale: state.loss_scale.scale }),
    }
  }

  while (unvalidated || (state.step < plan.total_steps && !isEnough())) {
    if (signal.aborted || (!unvalidated && state.step === request.pause_at)) {
      yield { type: 'stopped', step: state.step, ...(await files()) }
      yield save()
      return
    }
    const metrics = unvalidated ?? (await update())

    // How it does on rows it does not learn: one batch now and then, all of them at an epoch's end.
    const epochEnds = state.step % stepsPerEpoch === 0
    const pauses = state.step === request.pause_at
    if (validation.length > 0 && (epochEnds || pauses || state.step % validateEvery === 0)) {
      const some =
        epochEnds || pauses ? validation : rotate(validation, state.step, plan.batch_size)
      const valid = await trainer.evaluate(some, signal)
      unvalidated = valid ? undefined : metrics
      if (!valid) {
        yield { type: 'step', metrics, trained_tokens }
        continue
      }
      for (const prefix of epochEnds ? ['valid', 'full_valid'] : ['valid'])
        Object.assign(metrics, prefixed(prefix, { loss: valid.loss, ...valid.scores }))
      if (epochEnds) valid_losses.push(valid.loss)
      if (epochEnds && isEnough()) metrics.total_steps = state.step
    }
    if (epochEnds && probe)
      Object.assign(metrics, prefixed('probe', { ...(await probe.measure(state.adapter)) }))
    yield { type: 'step', metrics, trained_tokens }

    // What is kept: the adapter at an epoch's end, the state as often as it is cheap.
    if (epochEnds) {
      const best = bestEpoch(valid_losses)
      const is_best = best === undefined || best === valid_losses.length - 1
      yield { type: 'checkpoint', metrics, ...(await files()), is_best }
    }
    if (epochEnds || performance.now() - lastSave > saveInterval(subject.parameters)) {
      yield save()
      lastSave = performance.now()
    }
    if (epochEnds && scores && scores.length < state.step / stepsPerEpoch) {
      yield { type: 'unscored', step: state.step }
      return
    }
  }
  yield { type: 'done', step: state.step, trained_tokens }
}

/** What rows have lost since the last state. States are kept at every epoch's end, so all is of one epoch. */
function createLedger() {
  let lines: number[] = []
  let losses: number[] = []
  let epoch = 1
  return {
    note(of: number, examples: readonly Example[], measured: Float32Array) {
      epoch = of
      for (const [i, { line }] of examples.entries()) {
        lines.push(line)
        losses.push(measured[i]!)
      }
    },
    take(): RowLosses {
      const taken = { epoch, lines: Int32Array.from(lines), losses: Float32Array.from(losses) }
      lines = []
      losses = []
      return taken
    },
  }
}

const prefixed = (prefix: string, scores: Readonly<Record<string, number>>) =>
  Object.fromEntries(Object.entries(scores).map(([name, value]) => [`${prefix}_${name}`, value]))

/** Nothing that a further try could mend, and no model worth keeping. */
const diverged = (step: number) =>
  invalidRequest(
    `Training diverged at step ${step}: its loss or gradient is no finite number. Choose a lower learning rate.`,
    { code: 'training_diverged' },
  )

/** Milliseconds between two states, so that storing 12 bytes a parameter at 200 MB/s, and 30 ms beside it, stays cheap. */
const saveInterval = (parameters: number): number =>
  Math.min(SECONDS_AT_RISK * 1000, (30 + (12 * parameters) / 200_000) / SAVE_SHARE)

/** Fisher–Yates; epochs differ, runs with one seed do not. */
function shuffle(examples: readonly Example[], seed: number, epoch: number): Example[] {
  const shuffled = [...examples]
  for (let i = shuffled.length - 1; i > 0; i--) {
    const j = Math.floor(uniform(seed, epoch + 1, i) * (i + 1))
    const other = shuffled[j]!
    shuffled[j] = shuffled[i]!
    shuffled[i] = other
  }
  return shuffled
}

/** The validation batch of a step: the whole set in turns. */
function rotate(examples: readonly Example[], step: number, count: number): Example[] {
  const from = (step * count) % examples.length
  return Array.from(
    { length: Math.min(count, examples.length) },
    (_, i) => examples[(from + i) % examples.length]!,
  )
}
