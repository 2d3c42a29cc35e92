// Weights of networks too large to ship, as the fixtures' README defines them: mulberry32 seeded with the name's FNV-1a.
import type { StateDict, TensorRecord } from '@tinyfusion/weights';

/** A state dict of formula weights for the given shapes. */
export function formulaState(shapes: Record<string, readonly number[]>, gain: number): StateDict {
  const tensors = new Map<string, TensorRecord>();
  for (const [name, shape] of Object.entries(shapes)) {
    const values = formulaTensor(name, shape, gain);
    tensors.set(name, { dtype: 'F32', shape, read: async () => new Uint8Array(values.buffer) } as unknown as TensorRecord);
  }
  return { tensors, metadata: new Map() } as unknown as StateDict;
}

/** One tensor's values in C order. */
function formulaTensor(name: string, shape: readonly number[], gain: number): Float32Array<ArrayBuffer> {
  const uniform = mulberry32(fnv1a(name));
  const out = new Float32Array(shape.reduce((a, b) => a * b, 1));
  const fanIn = shape.slice(1).reduce((a, b) => a * b, 1);
  const last = name.slice(name.lastIndexOf('.') + 1);
  for (let i = 0; i < out.length; i++) {
    const u = uniform();
    const s = 2 * u - 1;
    if (last === 'running_mean' || last === 'bias') out[i] = 0.1 * s;
    else if (last === 'running_var') out[i] = 1 + 0.5 * u;
    else if (last === 'num_batches_tracked') out[i] = 0;
    else out[i] = shape.length === 1 ? 1 + 0.1 * s : (s * gain) / Math.sqrt(fanIn);
  }
  return out;
}

function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

function mulberry32(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
