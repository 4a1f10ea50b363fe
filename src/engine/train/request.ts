// What the training thread is asked, and what it answers: paths and numbers in, events out.

import type { FindingName } from '../curate/findings.ts'
import type { ClassificationTask } from '../datasets/classification-rows.ts'
import type { Truncation } from '../datasets/encode.ts'
import type { InspectedFile } from '../datasets/inspect-file.ts'
import type { Keep } from '../models/keep.ts'
import type { Evidence } from '../parity/parity.ts'
import type { Compute, DeviceKind } from '../runtime/device.ts'
import type { MethodName } from './methods/index.ts'
import type { TrainPrecision } from './precision.ts'
import type { PreflightProgress } from './preflight.ts'
import type { PreflightReport } from './preflight-report.ts'
import type { Patience } from './stopping.ts'

/** A hyperparameter that `inspect` turns into a number. */
export type Auto<T> = T | 'auto'

export interface LoraOptions {
  rank: number
  alpha: number
  /** Projections by their Hugging Face name, `q_proj` … `down_proj`. */
  target_modules: string[]
  /** Share of what an update reads that is dropped in training. */
  dropout?: number
  /** Scale alpha / √rank instead of alpha / rank. */
  use_rslora?: boolean
  /** Weight-decomposed: the length of each output's weights is trained too. */
  use_dora?: boolean
}

/** As sent: `all-linear` stands for every linear layer between embedding and head. */
export type SentLoraOptions = Partial<Omit<LoraOptions, 'target_modules' | 'rank'>> & {
  rank?: Auto<number>
  target_modules?: 'all-linear' | string[]
}

/** As the job's owner sent them; everything but the three of OpenAI is optional. */
export interface Hyperparameters {
  n_epochs: Auto<number>
  batch_size: Auto<number>
  learning_rate_multiplier: Auto<number>
  /** Overrides the multiplier times the table's base rate. */
  learning_rate?: number
  max_sequence_length?: number
  /** What becomes of longer rows; absent: they are cut. */
  truncation?: Truncation
  lora?: SentLoraOptions
  /** `none`: every weight is trained, and no adapter. */
  adapter?: 'lora' | 'none'
  /** LoRA+: the learning rate of B as a multiple of A's. */
  loraplus_lr_ratio?: number
  lr_schedule?: 'linear' | 'cosine' | 'constant'
  warmup_ratio?: number
  weight_decay?: number
  max_grad_norm?: number
  /** Of the frozen products; `auto`, or absent: whichever is faster without learning differently. */
  precision?: Auto<TrainPrecision>
  /** Of the method dpo. */
  beta?: Auto<number>
  /** So many devices share the micro-batches of a step; absent: one. */
  data_parallel?: number
  early_stopping?: EarlyStopping
}

/** When training ends before its last epoch. */
export interface EarlyStopping {
  /** Epochs without a gain. */
  patience?: number
  /** A smaller gain than this is none. */
  min_delta?: number
  metric?: 'valid_loss' | 'eval_score'
}

export interface Dataset {
  /** Absolute path of a JSONL file. */
  path: string
}

/** Reads and checks files, resolves every `auto`; touches no device. */
export interface InspectRequest {
  type: 'inspect'
  /** A Hugging Face folder or a .gguf file. */
  model: string
  training: Dataset
  validation?: Dataset
  method: MethodName
  hyperparameters: Hyperparameters
  /** What each device of the job is; absent: all of this machine's processors. */
  compute?: Compute
  /** Bytes that training may take; absent: what is free now. */
  memory?: number
  /** Folder for converted weights, where measured speeds lie too; absent: no time is forecast. */
  cache?: string
  /** A speed that is not known yet is measured: a few steps of the base on the device; `large`: of a base that is not small. */
  measure?: boolean | 'large'
  /** What a micro-batch should take at most, in seconds, where the longest example allows; absent: nobody waits for it. */
  micro_step_seconds?: number
  /** What is to be found out about the files besides; absent: nothing. */
  curation?: {
    reference?: Dataset
    /** Base models of this machine: an encoder among them reads what is compared with the reference. */
    models?: readonly { id: string; path: string }[]
    groups?: readonly string[]
    strict?: boolean | readonly FindingName[]
    validation_split?: number
  }
  /** Lines of the training file that are held back for validation, as `packLines` writes them. */
  held_back?: string
  /** Is told how far it has come; does not cross into a thread. */
  tell?: (stage: string, rows: number) => void
}

/** What could be chosen otherwise on another day, chosen once. Stored with the job and used again on resume. */
export interface Plan {
  n_epochs: number
  batch_size: number
  learning_rate_multiplier: number
  learning_rate: number
  lora: LoraOptions
  /** Every weight is trained, and no adapter. */
  adapter?: 'none'
  loraplus_lr_ratio?: number
  lr_schedule: 'linear' | 'cosine' | 'constant'
  warmup_steps: number
  weight_decay: number
  max_grad_norm: number
  total_steps: number
  /** Rows longer than this, in tokens, are cut or left out. */
  max_sequence_length: number
  truncation?: Truncation
  /** Tokens of one packed row, and rows of one micro-batch: the graph's static shape. */
  row_length: number
  rows: number
  /** Lines of the training file that are held back for validation, as `packLines` writes them. */
  held_back?: string
  /** What is kept of a micro-batch's activations; absent: everything. */
  keep?: Keep
  /** Of encoders: further rows of a micro-batch, for texts that are longer than most. */
  long_rows?: { rows: number; length: number }
  /** Of which kind each device is; absent: cpu. */
  device?: DeviceKind
  /** Of each device. */
  threads: number
  /** Devices that share the micro-batches of a step; absent: one. */
  devices?: number
  /** `auto` is decided by a short trial when training first starts, and told by an event. */
  precision: Auto<TrainPrecision>
  /** Of the method dpo. */
  beta?: number
  /** What was forecast of the memory that it takes. */
  memory_bytes?: number
  /** When training ends before its last epoch; absent: never. */
  early_stopping?: Patience
  /** What the method found in the training file and needs again: how many classes there are, and which. */
  facts?: { labels?: string[]; task?: ClassificationTask }
  /** One sentence a resolved `auto`: why this number. */
  reasons: string[]
}

/** What is in a file; the lengths of its rows stay in the thread. */
export type FileReport = Omit<InspectedFile, 'lengths' | 'trained' | 'distinct'>

/** What the plan will take on this machine. */
export interface Forecast {
  /** The most memory of the process that trains. */
  memory_bytes: number
  /** A step, and all of them with validation; null where this machine's speed is not known. */
  step_seconds: number | null
  seconds: number | null
}

export interface Inspection {
  type: 'inspected'
  training: FileReport
  validation?: FileReport
  /** Where lines of the training file are held back: `validation` is about them. */
  held_back?: string
  /** Elements that are trained. */
  parameters?: number
  /** Present where there is a plan. */
  forecast?: Forecast
  preflight?: PreflightReport
  /** Absent when a file has errors. */
  plan?: Plan
}

/** Trains to the end, or from `state` on. */
export interface TrainRequest {
  type: 'train'
  model: string
  /** Folder for converted weights, shared by all threads and processes. */
  cache: string
  training: Dataset
  validation?: Dataset
  method: MethodName
  plan: Plan
  seed: number
  /**
   * Path of an `adapter_model.safetensors`, its `adapter_config.json` beside it, from which training starts, with
   * fresh moments. It must have the rank, alpha and targets of the plan. Absent: a fresh adapter.
   */
  initial?: string
  /** Whether the loss on general texts is measured at each epoch's end, and how far from the base the model is on them. */
  probe?: boolean
  /** After this step, which is validated on all rows, training stops as if it had been asked to. */
  pause_at?: number
  /**
   * Scores of the epochs so far. Where they are given, training ends with `unscored` behind the state of each epoch's
   * end that has none, and is asked again with its score.
   */
  scores?: readonly number[]
  /** Bytes of a `state` event: training goes on after that step, bit for bit. */
  state?: Uint8Array
}

/** After training: what its graph says of a few rows, for the model that these files are. */
export interface EvidenceRequest
  extends Pick<
    TrainRequest,
    'model' | 'cache' | 'training' | 'validation' | 'method' | 'plan' | 'seed'
  > {
  type: 'evidence'
  /** Path of the model's `adapter_model.safetensors`, its `adapter_config.json` beside it. */
  adapter: string
}

export interface StepMetrics {
  step: number
  total_steps: number
  epoch: number
  /** Mean over what is learned in this step's examples, before the update. */
  train_loss: number
  /** Over some of the validation examples, and over all of them. */
  valid_loss?: number
  full_valid_loss?: number
  /**
   * On general texts: of the model, of its base, and the mean divergence of their predictions, in nats a token; of
   * encoders in nats a text, of which others it is near.
   */
  probe_loss?: number
  probe_base_loss?: number
  probe_divergence?: number
  learning_rate: number
  grad_norm: number
  /** What else the method measures, with the same prefixes: `train_mean_token_accuracy`. */
  [score: string]: number | undefined
}

/** How rows did when they were learned from, before the update. */
export interface RowLosses {
  /** The one that all of them belong to, from 1. */
  epoch: number
  /** Line in the training file, and loss, of each. */
  lines: Int32Array
  losses: Float32Array
}

export type TrainEvent =
  | Inspection
  | PreflightProgress
  /** What `auto` has come to: to be kept in the plan before anything else happens. */
  | { type: 'precision'; precision: TrainPrecision; reason: string }
  | { type: 'started'; step: number; total_steps: number }
  | { type: 'step'; metrics: StepMetrics /** supervised tokens so far */; trained_tokens: number }
  /**
   * All that resume needs, and what the rows since the last one have lost: both are kept at once or not at all. Yielded
   * often enough that at most a minute is lost, at epoch ends and when stopped.
   */
  | { type: 'state'; step: number; state: Uint8Array; losses: RowLosses }
  /**
   * At each epoch's end: the adapter as a PEFT folder's two files. `is_best`: no epoch before had a validation loss as
   * low, or none is known.
   */
  | {
      type: 'checkpoint'
      metrics: StepMetrics
      adapter: Uint8Array
      adapter_config: string
      is_best: boolean
    }
  /** When stopped, before the last state: the adapter as it stands. */
  | { type: 'stopped'; step: number; adapter: Uint8Array; adapter_config: string }
  /** The epoch that ended at this step wants its score; its checkpoint and state came before. */
  | { type: 'unscored'; step: number }
  | { type: 'done'; step: number; trained_tokens: number }
  /** What there is to compare, or why there is nothing; neither of a model that goes on with no text. */
  | { type: 'evidence'; evidence?: Evidence; unasked?: string }

export type TrainThreadRequest = InspectRequest | TrainRequest | EvidenceRequest
