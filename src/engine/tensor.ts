// Dtypes and host tensors. Knows bytes and shapes only; no graph, no session, no file.

export type Dtype =
  | 'float32'
  | 'float16'
  | 'bfloat16'
  | 'int64'
  | 'int32'
  | 'int8'
  | 'uint8'
  | 'bool'

/** Host memory of each dtype; float16 and bfloat16 are kept as their raw bits. */
export interface HostArrays {
  float32: Float32Array
  float16: Uint16Array
  bfloat16: Uint16Array
  int64: BigInt64Array
  int32: Int32Array
  int8: Int8Array
  uint8: Uint8Array
  bool: Uint8Array
}

export interface HostTensor<D extends Dtype = Dtype> {
  readonly dtype: D
  readonly dims: readonly number[]
  readonly data: HostArrays[D]
}

/** Number of elements in a shape. */
export const elements = (dims: readonly number[]): number => dims.reduce((n, d) => n * d, 1)

/** A float32 tensor over existing memory; throws when the sizes disagree. */
export function float32(dims: readonly number[], data: Float32Array): HostTensor<'float32'> {
  if (elements(dims) !== data.length)
    throw new Error(`float32: shape [${dims}] has ${elements(dims)} elements, got ${data.length}`)
  return { dtype: 'float32', dims, data }
}

/** An int64 tensor from ordinary integers. */
export function int64(dims: readonly number[], values: ArrayLike<number>): HostTensor<'int64'> {
  if (elements(dims) !== values.length)
    throw new Error(`int64: shape [${dims}] has ${elements(dims)} elements, got ${values.length}`)
  return { dtype: 'int64', dims, data: BigInt64Array.from(values as number[], BigInt) }
}

/** An int32 tensor from ordinary integers. */
export function int32(dims: readonly number[], values: ArrayLike<number>): HostTensor<'int32'> {
  if (elements(dims) !== values.length)
    throw new Error(`int32: shape [${dims}] has ${elements(dims)} elements, got ${values.length}`)
  return { dtype: 'int32', dims, data: Int32Array.from(values as number[]) }
}
