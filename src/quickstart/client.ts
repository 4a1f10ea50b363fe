// The public HTTP API as any client sees it, by plain fetch. Knows nothing else of the server.

import { openAsBlob } from 'node:fs'
import { basename } from 'node:path'
import type { ChatMessage } from '../engine/infer/request.ts'

export interface Job {
  id: string
  status: string
  fine_tuned_model: string | null
  trained_tokens: number | null
  error: { message: string } | null
}

export interface JobEvent {
  id: string
  type: string
  message: string
  data: { step?: number; total_steps?: number; train_loss?: number } | null
}

export interface NewJob {
  model: string
  training_file: string
  suffix: string
  seed: number
  method: { type: 'supervised'; supervised: { hyperparameters: Record<string, number | string> } }
}

export class Client {
  readonly #baseUrl: string
  readonly #key: string

  /** `baseUrl` ends in /v1. */
  constructor(baseUrl: string, key: string) {
    this.#baseUrl = baseUrl
    this.#key = key
  }

  /** Uploads a training file and returns its id. */
  async upload(path: string): Promise<string> {
    const form = new FormData()
    form.set('purpose', 'fine-tune')
    form.set('file', await openAsBlob(path), basename(path))
    const { id } = await this.#call<{ id: string }>('POST', '/files', form)
    return id
  }

  createJob(job: NewJob): Promise<Job> {
    return this.#call('POST', '/fine_tuning/jobs', JSON.stringify(job))
  }

  retrieveJob(id: string): Promise<Job> {
    return this.#call('GET', `/fine_tuning/jobs/${id}`)
  }

  /** The newest events first. */
  async listEvents(id: string, limit: number): Promise<JobEvent[]> {
    const page = await this.#call<{ data: JobEvent[] }>(
      'GET',
      `/fine_tuning/jobs/${id}/events?limit=${limit}`,
    )
    return page.data
  }

  /** One greedy answer. */
  async chat(model: string, messages: ChatMessage[], max_tokens: number): Promise<string> {
    const body = JSON.stringify({ model, messages, max_tokens, temperature: 0 })
    const { choices } = await this.#call<{ choices: { message: { content: string } }[] }>(
      'POST',
      '/chat/completions',
      body,
    )
    return choices[0]?.message.content ?? ''
  }

  async #call<T>(method: string, path: string, body?: string | FormData): Promise<T> {
    const response = await fetch(this.#baseUrl + path, {
      method,
      headers: {
        authorization: `Bearer ${this.#key}`,
        ...(typeof body === 'string' && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}: ${text}`)
    return JSON.parse(text) as T
  }
}
