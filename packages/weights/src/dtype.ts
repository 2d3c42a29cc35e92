import { CheckpointError } from '@tinyfusion/core';

/** Bytes of one value of each type that safetensors knows and JavaScript can hold. */
export const bytesPerValue = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, U64: 8, I32: 4, U32: 4, I16: 2, U16: 2, I8: 1, U8: 1, BOOL: 1, F8_E4M3: 1, F8_E5M2: 1 } as const;

/** Types of values, by safetensors' names. */
export type DType = keyof typeof bytesPerValue;

/** Whether a name is a type's. */
export function isDType(name: unknown): name is DType {
  return typeof name === 'string' && Object.hasOwn(bytesPerValue, name);
}

/**
 * Little-endian values as float32. Integers beyond 2²⁴ and float64 are rounded.
 * @throws CheckpointError for the 8-bit floats, which are not read yet
 */
export function decodeFloat32(bytes: Uint8Array, dtype: DType): Float32Array<ArrayBuffer> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = bytes.byteLength / bytesPerValue[dtype];
  const out = new Float32Array(count);
  switch (dtype) {
    case 'F32':
      new Uint8Array(out.buffer).set(bytes); // every platform that runs JavaScript engines is little-endian
      return out;
    case 'F16':
      for (let i = 0; i < count; i++) out[i] = halfToFloat(view.getUint16(2 * i, true));
      return out;
    case 'BF16': {
      const words = new Uint32Array(out.buffer);
      for (let i = 0; i < count; i++) words[i] = view.getUint16(2 * i, true) << 16;
      return out;
    }
    case 'F64':
      for (let i = 0; i < count; i++) out[i] = view.getFloat64(8 * i, true);
      return out;
    case 'I64':
      for (let i = 0; i < count; i++) out[i] = Number(view.getBigInt64(8 * i, true));
      return out;
    case 'U64':
      for (let i = 0; i < count; i++) out[i] = Number(view.getBigUint64(8 * i, true));
      return out;
    case 'I32':
      for (let i = 0; i < count; i++) out[i] = view.getInt32(4 * i, true);
      return out;
    case 'U32':
      for (let i = 0; i < count; i++) out[i] = view.getUint32(4 * i, true);
      return out;
    case 'I16':
      for (let i = 0; i < count; i++) out[i] = view.getInt16(2 * i, true);
      return out;
    case 'U16':
      for (let i = 0; i < count; i++) out[i] = view.getUint16(2 * i, true);
      return out;
    case 'I8':
      for (let i = 0; i < count; i++) out[i] = view.getInt8(i);
      return out;
    case 'U8':
    case 'BOOL':
      out.set(bytes);
      return out;
    default:
      throw new CheckpointError(`values of type ${dtype} cannot be converted to float32 here; convert the checkpoint to F16 or F32 first`);
  }
}

/**
 * float32 values as little-endian F32 or F16 (round to nearest, ties to even; infinities and NaN stay).
 * @param name what an error calls them
 * @throws CheckpointError where a finite value is beyond float16's range of ±65,504
 */
export function encodeFloat32(values: Float32Array, dtype: 'F32' | 'F16', name = 'the tensor'): Uint8Array<ArrayBuffer> {
  if (dtype === 'F32') return new Uint8Array(values.slice().buffer);
  const out = new Uint16Array(values.length);
  for (const [i, value] of values.entries()) {
    const half = floatToHalf(value);
    if ((half & 0x7fff) === INFINITE && Number.isFinite(value)) throw new CheckpointError(`${name} has a value of ${value}, which F16 cannot hold: it ends at 65504, F32 does not`);
    out[i] = half;
  }
  return new Uint8Array(out.buffer);
}

function halfToFloat(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Bits of an infinity in float16, sign aside. */
const INFINITE = 0x7c00;

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

function floatToHalf(value: number): number {
  float[0] = value;
  const word = bits[0]!;
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00; // NaN
  if (magnitude >= 0x477ff000) return sign | INFINITE; // rounds beyond 65504
  if (magnitude >= 0x38800000) {
    // normal: drop 13 bits, to nearest even
    const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
    return sign | ((rounded - 0x38000000) >>> 13);
  }
  // subnormal: multiples of 2^-24, exact in float64
  const scaled = Math.abs(float[0]) * 2 ** 24;
  const floor = Math.floor(scaled);
  const rest = scaled - floor;
  return sign | (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor);
}
