/** A view of values. */
export interface View {
  /** Bytes of a value. */
  bytes: number;
  shape: readonly number[];
  /** Values from one index of an axis to the next. */
  strides: readonly number[];
  /** Values before the first. Default 0. */
  offset?: number;
}

/** The values of a view in C order. Where they lie so already, a part of `from` itself. */
export function contiguous(from: Uint8Array, { bytes, shape, strides, offset = 0 }: View): Uint8Array {
  const size = shape.reduce((a, b) => a * b, 1);
  const inOrder = shape.every((n, axis) => n <= 1 || strides[axis] === shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  if (inOrder) return from.subarray(offset * bytes, (offset + size) * bytes);
  const out = new Uint8Array(size * bytes);
  const index = shape.map(() => 0);
  let at = offset;
  for (let i = 0; i < size; i++) {
    for (let b = 0; b < bytes; b++) out[i * bytes + b] = from[at * bytes + b]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      at -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}
