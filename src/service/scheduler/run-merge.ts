// Merges as a kind of work: in a thread of their own and on no device, into a folder that the next run goes on from.

import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { namesIn, parseRequested, searchedIn } from '../../engine/merge/requested.ts'
import { candidateText } from '../../engine/merge/run.ts'
import type { Candidate, Choice } from '../../engine/merge/search-points.ts'
import type { MergeThreadEvent, MergeThreadRequest } from '../../engine/merge/thread.ts'
import { spawn, type TakeTurn } from '../../engine/runtime/thread.ts'
import type { Logger } from '../../log.ts'
import {
  type ChosenOfSearch,
  endMerge,
  findMerge,
  type Merge,
  setChosen,
  setMerged,
} from '../db/merges.ts'
import { insertModel, insertModelFiles } from '../db/models.ts'
import type { PoolClient } from '../db/pool.ts'
import { insertParents } from '../db/provenance.ts'
import { endWork, holdLease, type Lease, LeaseLost, noteProgress } from '../db/work.ts'
import { type InputDeps, inputFiles, rootOfResult, rowsOfSearch } from '../merges/inputs.ts'
import { MERGE, MERGE_THREAD } from '../merges/merges.ts'
import { endSearch } from '../merges/searched.ts'
import type { ResolvedModel } from '../models/model.ts'
import { localFile } from '../storage/local-file.ts'
import { objectKey, type Staged } from '../storage/object-store.ts'
import { keepObjects, releaseObjects, type Stores } from '../storage/objects.ts'
import { tell, tellFailure } from '../work/events.ts'
import { failureOf } from '../work/failure.ts'
import { whileHeld } from '../work/held.ts'
import type { Outcome, WorkKind } from '../work/kind.ts'
import { Hopeless, patiently } from '../work/patience.ts'
import { startWorker, type Worker, type WorkerOptions } from '../work/worker.ts'
import { MergeFault, mergeInThread } from './merging-thread.ts'
import type { ModelFolders } from './model-folders.ts'
import { type EvalSearch, searchByEval } from './search-by-eval.ts'
import { type StagedFile, stageFiles } from './stage-files.ts'

export interface RunMergeDeps extends InputDeps {
  stores: Stores
  folders: ModelFolders
  threads: number
  /** Of a search, which computes losses. */
  takeTurn: TakeTurn
  /** Folder for converted weights. */
  cache: string
  /** What a message says of files, without the folders of this machine. */
  told: (message: string) => string
  /** Makes the new model resident before it is announced, so that it answers at once. */
  warm?: (model: ResolvedModel) => Promise<void>
  log: Logger
}

export type MergingOptions = RunMergeDeps &
  Pick<WorkerOptions, 'lease_seconds' | 'poll_seconds'> & {
    /** `cpu`, …: as the work's column has it. */
    device: string
  }

/** What came out, and where it lies. */
interface Made {
  merge: Merge
  out: string
  files: readonly string[]
}

/** The merge in its thread: into the folder, with what a search has chosen where it has one by an eval. */
type Merging = (out: string, choice?: Choice) => AsyncIterable<MergeThreadEvent>

type MergedEvent = Extract<MergeThreadEvent, { type: 'merged' }>

/** How often progress is written. */
const TELL_MS = 2000

/** Starts claiming merges, one at a time; dispose it to stop, which keeps the tensors that are done. */
export function startMerging(options: MergingOptions): Worker {
  const { lease_seconds, poll_seconds, device, ...deps } = options
  return startWorker({
    db: deps.stores.db,
    log: deps.log,
    kinds: [mergeKind(deps)],
    devices: { device, devices: 1 },
    ...(lease_seconds !== undefined && { lease_seconds }),
    ...(poll_seconds !== undefined && { poll_seconds }),
  })
}

const mergeKind = (deps: RunMergeDeps): WorkKind => ({
  kind: MERGE,
  run: async (lease, signal) => {
    try {
      return await new Run(deps, lease, signal).toEnd()
    } catch (error) {
      if (!signal.aborted) throw error
      if (signal.reason instanceof LeaseLost || error instanceof LeaseLost) {
        await forget(deps, lease)
        throw signal.reason instanceof LeaseLost ? signal.reason : error
      }
      return { type: 'stopped' }
    }
  },
  fail: (lease, cause) => failed(deps, lease, cause),
})

class Run {
  readonly #deps: RunMergeDeps
  readonly #lease: Lease
  readonly #signal: AbortSignal

  constructor(deps: RunMergeDeps, lease: Lease, signal: AbortSignal) {
    this.#deps = deps
    this.#lease = lease
    this.#signal = signal
  }

  async toEnd(): Promise<Outcome> {
    const { stores, folders, threads, cache, takeTurn, told, log } = this.#deps
    const { id, project_id } = this.#lease
    const merge = await patiently(() => findMerge(stores.db, project_id, id))
    if (!merge) throw new Hopeless(`There is work for the merge ${id}, but no such merge.`)
    const { config } = merge
    const requested = parseRequested(config)
    const models = await patiently(() => inputFiles(this.#deps, project_id, namesIn(requested)))
    const root = await patiently(() => rootOfResult(this.#deps, project_id, requested))
    const file = await patiently(() => rowsOfSearch(stores.db, project_id, requested))
    await using rows = file && (await localFile(stores.store, objectKey(project_id, file.sha256)))
    const search = rows && { search: { rows: rows.path, cache } }
    await using thread = spawn<MergeThreadRequest, MergeThreadEvent>(MERGE_THREAD, takeTurn)
    const context = { thread, signal: this.#signal, told }
    const request = { only_check: false, config, models, threads, ...search }
    const merging: Merging = (out, choice) =>
      mergeInThread({ ...request, out, ...(choice && { choice }) }, context)

    const searched = searchedIn(requested)
    const out = folders.aside(id)
    const choice =
      searched?.search.eval === undefined
        ? undefined
        : await this.#chosen(merge, { searched, root, folder: join(out, '.candidate'), merging })
    const files = await this.#merged(id, root, merging(out, choice))
    const made = { merge, out, files }
    if (root === undefined) await this.#publishModel(made)
    else await this.#publishAdapter(made, root)
    log.info({ merge: id, model: merge.model_name }, 'merge succeeded')
    return { type: 'ended' }
  }

  /** Tells how far it is; returns the files that came out. */
  async #merged(
    id: string,
    root: string | undefined,
    events: AsyncIterable<MergeThreadEvent>,
  ): Promise<readonly string[]> {
    let last = 0
    let merged: MergedEvent | undefined
    for await (const event of events)
      if (event.type === 'planned') {
        await this.#write(async (tx) => {
          await setMerged(tx, id, event.done)
          const rest = event.done > 0 ? `, ${event.done} of them done before` : ''
          const what = `Merging ${event.tensors} ${root === undefined ? 'tensors' : 'modules'}, ${(event.bytes / 1e6).toFixed(1)} MB${rest}`
          await tell(tx, id, `planned-${event.done}`, what)
        })
        this.#deps.log.info(
          { merge: id, tensors: event.tensors, done: event.done },
          'merge started',
        )
      } else if (event.type === 'tensor') {
        if (Date.now() - last < TELL_MS) continue
        last = Date.now()
        await this.#write(async (tx) => {
          await setMerged(tx, id, event.done)
          await noteProgress(tx, this.#lease)
        })
      } else if (event.type === 'candidate') await this.#tried(id, event)
      else if (event.type === 'merged') merged = event
    if (!merged) throw new Error('The merge ended without a result.')
    const { note, files } = merged
    if (note !== undefined) await this.#write((tx) => tell(tx, id, 'note', `${note}.`))
    return files
  }

  /** What an eval chooses; `folder` is where each candidate is made, whole, before it is asked. */
  async #chosen(
    merge: Merge,
    {
      folder,
      merging,
      ...of
    }: Pick<EvalSearch, 'searched' | 'root'> & { folder: string; merging: Merging },
  ): Promise<Choice> {
    await this.#write((tx) => setMerged(tx, merge.id, 0))
    const make = async (choice: Choice, candidate: number) => {
      await rm(folder, { recursive: true, force: true })
      let merged: MergedEvent | undefined
      try {
        for await (const event of merging(folder, choice))
          if (event.type === 'merged') merged = event
      } catch (error) {
        if (!(error instanceof MergeFault)) throw error
        throw new MergeFault(`Candidate ${candidate} of the search: ${error.message}`)
      }
      if (!merged) throw new Error('The merge of a candidate ended without a result.')
      return { folder, files: merged.files }
    }
    const held = { lease: this.#lease, signal: this.#signal }
    const search = searchByEval(this.#deps.stores, { merge, make, ...of, ...held })
    for (;;) {
      const next = await search.next()
      if (next.done) {
        await rm(folder, { recursive: true, force: true })
        return next.value
      }
      await this.#tried(merge.id, next.value)
    }
  }

  #tried(id: string, event: Candidate): Promise<void> {
    return this.#write(async (tx) => {
      await setMerged(tx, id, 0)
      if (event.best) await setChosen(tx, id, chosenOf(event))
      await tell(tx, id, `candidate-${event.candidate}`, candidateText(event))
      // An eval's score is not asked for again.
      if (event.score !== undefined) await noteProgress(tx, this.#lease)
    })
  }

  /** Stores the files, and makes them a model: all of it, or nothing. */
  async #publishModel(made: Made): Promise<void> {
    const { folders, warm, log } = this.#deps
    const { merge, out } = made
    const { id, project_id, model_name } = merge
    await this.#staged(made, async (staged) => {
      const files = staged.map(({ path, sha256, bytes }) => ({ path, sha256, bytes }))
      const base_path = await folders.put(out, project_id, files)
      try {
        await warm?.({ id: model_name, base_path, root: model_name, project_id, merge_id: id })
      } catch (err) {
        log.warn({ merge: id, err }, 'the new model is not resident yet')
      }
      await this.#keep(merge, staged, async (tx) => {
        await insertModel(tx, { ...this.#rowOf(merge), root: model_name })
        await insertModelFiles(tx, { id: model_name, project_id }, files)
      }).catch(async (error) => {
        await folders.remove(project_id, files)
        throw error
      })
    })
  }

  /** The same for an adapter over `root`, which is kept as a tuned model's is. */
  async #publishAdapter(made: Made, root: string): Promise<void> {
    const { models, warm, log } = this.#deps
    const { merge, out } = made
    await this.#staged(made, async (staged) => {
      const hashOf = (path: string) => staged.find((one) => one.path === path)!.sha256
      await this.#keep(merge, staged, (tx) =>
        insertModel(tx, {
          ...this.#rowOf(merge),
          root,
          adapter_sha256: hashOf('adapter_model.safetensors'),
          adapter_config_sha256: hashOf('adapter_config.json'),
        }),
      )
    })
    await rm(out, { recursive: true, force: true })
    try {
      await warm?.(await models.resolve(merge.project_id, merge.model_name))
    } catch (err) {
      log.warn({ merge: merge.id, err }, 'the new model is not resident yet')
    }
  }

  #rowOf({ id, project_id, model_name, parents }: Merge) {
    return { id: model_name, project_id, merge_id: id, parent: parents[0]! }
  }

  async #staged(
    { out, files }: Made,
    body: (staged: readonly StagedFile[]) => Promise<void>,
  ): Promise<void> {
    const full =
      'The merged model cannot be stored: there is no more room for its files on the disk'
    const { store } = this.#deps.stores
    const { staged } = await stageFiles(store, { folder: out, paths: files, full }, this.#signal)
    try {
      await body(staged)
    } catch (error) {
      for (const one of staged) await one.discard()
      throw error
    }
  }

  /** In one transaction: the objects, the model's rows, and the end of the merge. */
  async #keep(
    { id, project_id, model_name, parents }: Merge,
    staged: readonly Staged[],
    insert: (tx: PoolClient) => Promise<void>,
  ): Promise<void> {
    const { stores } = this.#deps
    const free = await keepObjects(stores, project_id, staged, async (tx) => {
      await holdLease(tx, this.#lease)
      await insert(tx)
      await insertParents(tx, { project_id, model: model_name, parents })
      await endMerge(tx, id, { status: 'succeeded' })
      await tell(tx, id, 'succeeded', `The merge has completed: its model is ${model_name}`)
      await endWork(tx, this.#lease)
      return endSearch(tx, id)
    })
    await releaseObjects(stores, project_id, free)
  }

  #write<T>(body: (tx: PoolClient) => Promise<T>): Promise<T> {
    return whileHeld(this.#deps.stores.db, this.#lease, body)
  }
}

const chosenOf = ({
  candidate,
  budget,
  weights,
  density,
  loss,
  score,
}: Candidate): ChosenOfSearch => ({
  candidate,
  budget,
  weights: [...weights],
  ...(density !== undefined && { density }),
  ...(loss !== undefined && { loss }),
  ...(score !== undefined && { score }),
})

/** What a cancelled merge has made goes; what another process goes on with stays. */
async function forget({ stores, folders }: RunMergeDeps, { id, project_id }: Lease) {
  const merge = await findMerge(stores.db, project_id, id).catch(() => undefined)
  if (merge?.finished_at) await rm(folders.aside(id), { recursive: true, force: true })
}

async function failed(deps: RunMergeDeps, lease: Lease, cause: unknown): Promise<void> {
  const { id, project_id } = lease
  const { stores } = deps
  const error =
    cause instanceof MergeFault
      ? { code: 'merge_failed', message: `The merge failed. ${cause.message}`, param: null }
      : failureOf(cause, 'merge')
  const free = await whileHeld(stores.db, lease, async (tx) => {
    await tellFailure(tx, id, error)
    await endMerge(tx, id, { status: 'failed', error })
    await endWork(tx, lease)
    return endSearch(tx, id)
  })
  await releaseObjects(stores, project_id, free)
  await rm(deps.folders.aside(id), { recursive: true, force: true })
}
