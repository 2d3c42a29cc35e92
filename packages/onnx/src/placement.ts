import { ArgumentError } from '@tinyfusion/core';
import type { Initialiser } from './graph-builder.js';

/** What a protobuf file may take, less some for all that is not weights. */
const LARGEST = 2 ** 31 - 2 ** 24;
/** Smaller tensors stay in the model: shapes must, as runtimes read them before they open the file beside it. */
const SMALLEST_OUTSIDE = 1024;
/** Where tensors begin in the file, so that it can be mapped into memory. */
const ALIGNMENT = 4096;

/** A tensor in the file beside the model. */
export interface Beside<T> {
  readonly tensor: T;
  readonly offset: number;
}

/** Which tensors lie in the model and which beside it, and the bytes of the file beside it. */
export interface Placement<T> {
  readonly inside: readonly T[];
  readonly beside: readonly Beside<T>[];
  readonly size: number;
}

/**
 * Places tensors, in their order.
 * @param external whether large ones lie beside the model. Default: where a protobuf file cannot hold them all
 * @throws ArgumentError where `external` is false and it cannot
 */
export function placed<T extends Pick<Initialiser, 'size'>>(tensors: readonly T[], external?: boolean): Placement<T> {
  const total = tensors.reduce((sum, { size }) => sum + size, 0);
  if (external === false && total > LARGEST) throw new ArgumentError('ExportOnnxOptions.externalData', false, `true, or left out: the weights take ${total} bytes, and a protobuf file no more than 2 GB`);
  const isOutside = ({ size }: T): boolean => (external ?? total > LARGEST) && size >= SMALLEST_OUTSIDE;
  const beside: Beside<T>[] = [];
  let size = 0;
  for (const tensor of tensors.filter(isOutside)) {
    const offset = Math.ceil(size / ALIGNMENT) * ALIGNMENT;
    beside.push({ tensor, offset });
    size = offset + tensor.size;
  }
  return { inside: tensors.filter((tensor) => !isOutside(tensor)), beside, size };
}

/**
 * The bytes of the file beside the model.
 * @yields tensors and the zeros between them, in order
 */
export async function* besideBytes(beside: readonly Beside<Initialiser>[]): AsyncGenerator<Uint8Array, void, void> {
  let at = 0;
  for (const { tensor, offset } of beside) {
    if (offset > at) yield new Uint8Array(offset - at);
    yield await tensor.read();
    at = offset + tensor.size;
  }
}
