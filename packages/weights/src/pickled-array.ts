import { CheckpointError } from '@tinyfusion/core';
import { arrayRecord, codes } from './numpy.js';
import { PickledObject, shown } from './pickle.js';
import type { TensorRecord } from './state-dict.js';

/** Names by which pickles make numpy's arrays, of numpy 1 and 2. */
export const arrayNames = ['numpy.core.multiarray._reconstruct', 'numpy._core.multiarray._reconstruct', 'numpy.core.multiarray.scalar', 'numpy._core.multiarray.scalar', 'numpy.ndarray', 'numpy.dtype', '_codecs.encode'];

/**
 * A numpy array inside a pickle, as torch-fidelity keeps statistics; nothing where it is something else.
 * @throws CheckpointError where it is of objects, or damaged
 */
export function pickledArray(where: string, node: PickledObject): TensorRecord | undefined {
  if (!/^numpy\._?core\.multiarray\._reconstruct$/.test(node.type)) return undefined;
  const [, shape, type, fortran, data] = Array.isArray(node.state) ? (node.state as unknown[]) : [];
  const code = type instanceof PickledObject && type.type === 'numpy.dtype' ? shown(type.args[0]) : '';
  const order = type instanceof PickledObject && Array.isArray(type.state) ? shown((type.state as unknown[])[1]) : '|';
  const dtype = Object.hasOwn(codes, code) ? codes[code] : undefined;
  const bytes = bytesOf(data);
  if (dtype === undefined || bytes === undefined) throw new CheckpointError(`${where} is a numpy array of ${code === '' ? 'no known type' : code === 'O8' ? 'Python objects' : code}; only numbers and booleans are read`);
  if (!Array.isArray(shape) || !shape.every((n) => Number.isSafeInteger(n) && n >= 0)) throw new CheckpointError(`${where} is a numpy array of shape ${shown(shape)}`);
  return arrayRecord(where, { dtype, bigEndian: order === '>', fortran: fortran === true, shape: shape as number[], start: 0 }, bytes.length, async () => bytes);
}

/** Bytes, which older protocols write as text of Latin-1. */
function bytesOf(data: unknown): Uint8Array | undefined {
  if (data instanceof Uint8Array) return data;
  const text = data instanceof PickledObject && data.type === '_codecs.encode' && data.args[1] === 'latin1' ? data.args[0] : data;
  if (typeof text !== 'string') return undefined;
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) {
    const value = text.charCodeAt(i);
    if (value > 255) return undefined;
    bytes[i] = value;
  }
  return bytes;
}
