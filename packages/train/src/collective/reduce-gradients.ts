import { valuesOnHeap } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import type { Collective } from './collective.js';

/** Options of {@link reduceGradients}. */
export interface ReduceGradientsOptions {
  /** What this rank's gradients count for: its share of the global batch. Default 1 / size, the mean. */
  weight?: number;
  /** Most bytes that are sent at once, but for a tensor that is larger by itself. Default 4 MB. */
  bucketBytes?: number;
}

/** Buckets under way at once: one is read from the device while another is being reduced. */
const UNDER_WAY = 2;

/**
 * Σ over ranks of weight · gradient, for each gradient. They travel in buckets, each of whole tensors: while one is being
 * reduced, the next is read from the device (Li et al. 2020, section 3.2.3, without the hooks: gradients come all at once here).
 *
 * @param gradients of the same shapes on every rank; borrowed
 * @returns new tensors, the same on every rank
 */
export async function reduceGradients(collective: Collective, gradients: readonly tf.Tensor[], { weight = 1 / collective.size, bucketBytes = 4 * 2 ** 20 }: ReduceGradientsOptions = {}): Promise<tf.Tensor[]> {
  if (collective.size === 1) return gradients.map((gradient) => (weight === 1 ? tf.clone(gradient) : tf.mul(gradient, weight)));
  const reduced: tf.Tensor[] = [];
  const underWay: (() => Promise<void>)[] = [];
  // for buckets in turns: when one is read, only the UNDER_WAY − 1 before it are still under way
  const rooms = spareRooms.get(collective) ?? [];
  spareRooms.delete(collective);
  try {
    for (const [i, bucket] of bucketsOf(gradients, bucketBytes).entries()) {
      const values = await read(bucket, weight, (size) => roomFor(rooms, i % UNDER_WAY, size));
      const sent = collective.allReduce(values, 'sum');
      sent.catch(() => {}); // it is awaited below, maybe after another one failed
      underWay.push(async () => {
        await sent;
        reduced.push(...unpacked(bucket, values));
      });
      if (underWay.length === UNDER_WAY) await underWay.shift()!();
    }
    for (const finish of underWay) await finish();
    spareRooms.set(collective, rooms);
    return reduced;
  } catch (error) {
    tf.dispose(reduced);
    throw error;
  }
}

/** Tensors in order, in groups of at most so many bytes, or of one. */
function bucketsOf(tensors: readonly tf.Tensor[], bytes: number): tf.Tensor[][] {
  const buckets: tf.Tensor[][] = [];
  let room = 0;
  for (const tensor of tensors) {
    const size = 4 * tensor.size;
    if (buckets.length === 0 || size > room) {
      buckets.push([]);
      room = bytes;
    }
    buckets.at(-1)!.push(tensor);
    room -= size;
  }
  return buckets;
}

/** Rooms from one step to the next: the first use of new memory takes longer than what is done with it. */
const spareRooms = new WeakMap<Collective, Float32Array[]>();

/** The first `size` places of a room, of a larger one where it has too few. */
function roomFor(rooms: Float32Array[], index: number, size: number): Float32Array {
  if (rooms[index] === undefined || rooms[index].length < size) rooms[index] = new Float32Array(size);
  return rooms[index].subarray(0, size);
}

/** weight · values of all tensors, one after another. */
async function read(tensors: readonly tf.Tensor[], weight: number, room: (size: number) => Float32Array): Promise<Float32Array> {
  if (tensors.every((tensor) => valuesOnHeap(tensor) !== undefined)) {
    // WASM copies what a tensor is made of at once, so the room is free again then; other backends keep the array
    const values = room(tensors.reduce((sum, { size }) => sum + size, 0));
    let at = 0;
    for (const tensor of tensors) scaleInto(values.subarray(at, (at += tensor.size)), valuesOnHeap(tensor)!, weight);
    return values;
  }
  // joined on the device, so that one read brings them
  const joined = tf.tidy(() => tf.mul(tf.concat1d(tensors.map((tensor) => tf.reshape<tf.Rank.R1>(tensor, [tensor.size]))), weight));
  try {
    return await joined.data<'float32'>();
  } finally {
    joined.dispose();
  }
}

/** to = factor · from; four at a time take half the time. */
function scaleInto(to: Float32Array, from: Float32Array, factor: number): void {
  const whole = to.length & ~3;
  for (let i = 0; i < whole; i += 4) {
    to[i] = factor * from[i]!;
    to[i + 1] = factor * from[i + 1]!;
    to[i + 2] = factor * from[i + 2]!;
    to[i + 3] = factor * from[i + 3]!;
  }
  for (let i = whole; i < to.length; i++) to[i] = factor * from[i]!;
}

function unpacked(like: readonly tf.Tensor[], values: Float32Array): tf.Tensor[] {
  let at = 0;
  return like.map((tensor) => tf.tensor(values.subarray(at, (at += tensor.size)), tensor.shape));
}
