// What a client may name as `model`: a base model on disk, a tuned model, or a checkpoint of a job.

import type { Certificate } from '../../engine/parity/parity.ts'

/** An adapter's two files, by the hashes under which the object store keeps them. */
export interface StoredAdapter {
  /** Of `adapter_model.safetensors`; identifies the adapter. */
  sha256: string
  /** Of `adapter_config.json`. */
  config_sha256: string
}

/** A name, resolved for one project: which weights answer to it. */
export interface ResolvedModel {
  /** The name as the client sent it. */
  id: string
  /** Absolute path of the base: a Hugging Face folder or a .gguf file. */
  base_path: string
  /** Folder for its converted weights, where they are to go with it. */
  cache?: string
  adapter?: StoredAdapter
  /** The base model's real id, whatever alias was sent. */
  root: string
  /** The project whose objects hold the adapter. */
  project_id: string
  /** The job that made it; absent for a base model, and for a merged one. */
  job_id?: string
  /** The merge that made it. */
  merge_id?: string
  /** The import that brought it. */
  import_id?: string
}

/** One entry of `GET /models`. */
export interface ModelEntry {
  id: string
  created_at: Date
  owned_by: string
  /** What it was tuned from, or what an alias stands for; null for a base model. */
  parent: string | null
  root: string
  job_id: string | null
  /** Of a tuned model: that it is served as it was trained. */
  parity: Certificate | null
}

export interface Models {
  /** Throws `modelNotFound` where the project has no such model. */
  resolve(project_id: string, name: string): Promise<ResolvedModel>
  retrieve(project_id: string, name: string): Promise<ModelEntry>
  list(project_id: string): Promise<ModelEntry[]>
  /** Ends a tuned model's name and its checkpoints' names; a base model is a 400, and one that others build on. */
  delete(project_id: string, name: string): Promise<void>
}
