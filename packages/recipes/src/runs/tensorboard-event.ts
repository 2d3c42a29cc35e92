import { concatenate } from '@tinyfusion/core';
import { crc32c } from './crc32c.js';

/** What TensorBoard shows of a step. */
export type SummaryValue = { tag: string; scalar: number } | { tag: string; image: { width: number; height: number; channels: number; png: Uint8Array } };

/** An event of TensorFlow's `event.proto`; the fields that TensorBoard reads. */
export interface TensorBoardEvent {
  /** Seconds since 1970. */
  wallTime: number;
  step?: number;
  /** The first event of a file alone: `'brain.Event:2'`. */
  fileVersion?: string;
  values?: readonly SummaryValue[];
  /** Says that the run was started again at `step`: what earlier files say from there on is dropped. */
  restarted?: boolean;
}

/** An event as a record of a TFRecord file: length, its CRC, the bytes, their CRC. */
export function tensorBoardRecord(event: TensorBoardEvent): Uint8Array<ArrayBuffer> {
  const data = encodeEvent(event);
  const out = new Uint8Array(16 + data.length);
  const view = new DataView(out.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, masked(out.subarray(0, 8)), true);
  out.set(data, 12);
  view.setUint32(12 + data.length, masked(data), true);
  return out;
}

/** TensorFlow stores CRCs of data that hold CRCs themselves, so it turns them. */
function masked(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

function encodeEvent({ wallTime, step = 0, fileVersion, values, restarted }: TensorBoardEvent): Uint8Array {
  const START = 1;
  return concatenate([
    fixed(1, 8, (view) => view.setFloat64(0, wallTime, true)),
    number(2, step),
    ...(fileVersion === undefined ? [] : [bytes(3, new TextEncoder().encode(fileVersion))]),
    ...(values === undefined ? [] : [bytes(5, concatenate(values.map((value) => bytes(1, encodeValue(value)))))]),
    ...(restarted === true ? [bytes(7, number(1, START))] : []),
  ]);
}

function encodeValue(value: SummaryValue): Uint8Array {
  const tag = bytes(1, new TextEncoder().encode(value.tag));
  if ('scalar' in value) return concatenate([tag, fixed(2, 4, (view) => view.setFloat32(0, value.scalar, true))]);
  const { width, height, channels, png } = value.image;
  return concatenate([tag, bytes(4, concatenate([number(1, height), number(2, width), number(3, channels), bytes(4, png)]))]);
}

// protocol buffers: a field is its number and wire type, then its value
const [VARINT, FIXED64, LENGTH, FIXED32] = [0, 1, 2, 5] as const;

const number = (field: number, value: number): Uint8Array => concatenate([varint((field << 3) | VARINT), varint(value)]);
const bytes = (field: number, value: Uint8Array): Uint8Array => concatenate([varint((field << 3) | LENGTH), varint(value.length), value]);

function fixed(field: number, size: 4 | 8, set: (view: DataView) => void): Uint8Array {
  const value = new Uint8Array(size);
  set(new DataView(value.buffer));
  return concatenate([varint((field << 3) | (size === 8 ? FIXED64 : FIXED32)), value]);
}

/** @param value a non-negative safe integer */
function varint(value: number): Uint8Array {
  const out: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Uint8Array.from([...out, rest]);
    out.push((rest % 128) | 128);
  }
}
