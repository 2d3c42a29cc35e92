// Weights and inputs: the same numbers in every language and engine, and what checks compare.

/** Deterministic numbers, uniform with deviation `deviation`, the same in every language: an integer hash of name and place. */
export function fill(name, size, deviation) {
  let seed = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) seed = Math.imul(seed ^ name.charCodeAt(i), 0x01000193);
  const out = new Float32Array(size);
  const factor = (deviation * Math.sqrt(12)) / 2 ** 32;
  for (let i = 0; i < size; i++) {
    let x = (Math.imul(i, 0x9e3779b1) + seed) | 0;
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    out[i] = ((x ^ (x >>> 16)) >>> 0) * factor - deviation * Math.sqrt(3);
  }
  return out;
}

/** The deviation of a parameter: 1/√inputs for matrices, 0.02 for what is added. */
export const deviationOf = (shape) => (shape.length < 2 ? 0.02 : 1 / Math.sqrt(shape.slice(1).reduce((a, b) => a * b, 1)));

/** Inputs of a DiT as plain arrays. */
export function ditInputs({ size, batch, classes = 1000 }) {
  return {
    x: fill('x', batch * size * size * 4, 1),
    t: Float32Array.from({ length: batch }, (_, i) => (37 * i + 11) % 1000),
    y: Int32Array.from({ length: batch }, (_, i) => (7 * i + 3) % classes),
  };
}

/** What checks compare: the mean magnitude. */
export function meanMagnitude(values) {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += Math.abs(values[i]);
  return total / values.length;
}
