// Signed statements: Ed25519 (RFC 8032) over JSON in one spelling. Knows no model and no database.

import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  sign,
  verify,
} from 'node:crypto'

/** A statement with its signature, as it lies in an export. */
export interface Sealed<T = unknown> {
  statement: T
  signature: {
    algorithm: 'ed25519'
    /** The first 16 hex digits of the public key's SHA-256. */
    key_id: string
    /** The raw 32 bytes in base64. */
    public_key: string
    value: string
  }
}

export interface SigningKey {
  readonly key_id: string
  readonly public_key: string
  seal<T>(statement: T): Sealed<T>
}

/** A fresh private key as PEM. */
export const newPrivateKey = (): string =>
  generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()

/** The same value in the same spelling, whatever the order of its fields. */
export function spelled(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(spelled).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  const fields = Object.entries(value)
    .filter(([, field]) => field !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${fields.map(([key, field]) => `${JSON.stringify(key)}:${spelled(field)}`).join(',')}}`
}

/** What signs with a private key. */
export function signingKey(pem: string): SigningKey {
  const key = createPrivateKey(pem)
  const raw = createPublicKey(key).export({ format: 'jwk' }).x!
  const public_key = Buffer.from(raw, 'base64url').toString('base64')
  const key_id = keyIdOf(public_key)
  return {
    key_id,
    public_key,
    seal: (statement) => ({
      statement,
      signature: {
        algorithm: 'ed25519',
        key_id,
        public_key,
        value: sign(null, Buffer.from(spelled(statement)), key).toString('base64'),
      },
    }),
  }
}

export const keyIdOf = (public_key: string): string =>
  createHash('sha256').update(Buffer.from(public_key, 'base64')).digest('hex').slice(0, 16)

/** Whether the statement was signed by the holder of this public key (raw, base64). */
export function isSealedBy(sealed: Sealed, public_key: string): boolean {
  const x = Buffer.from(public_key, 'base64')
  if (x.length !== 32) return false
  const key = createPublicKey({
    key: { kty: 'OKP', crv: 'Ed25519', x: x.toString('base64url') },
    format: 'jwk',
  })
  const value = Buffer.from(String(sealed.signature?.value), 'base64')
  return verify(null, Buffer.from(spelled(sealed.statement)), key, value)
}
