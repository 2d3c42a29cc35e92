import { ArgumentError } from './errors.js';
import { checkIntegerRange } from './integer-range.js';
import { MersenneTwister } from './mersenne-twister.js';

/** The draws of numpy's `RandomState` that reference code makes: orders of generation, splits and subsets in metrics. */
export interface NumpyRandom {
  /** `random_sample(count)`: float64 in [0, 1), 53 bits each. */
  uniform(count: number): Float64Array<ArrayBuffer>;
  /** `randint(low, high, count)`. @throws ArgumentError where these are none, or beyond −2³¹ to 2³¹ */
  integers(low: number, high: number, count: number): Int32Array<ArrayBuffer>;
  /** `permutation(count)`: what `shuffle` makes of 0 … count − 1; its beginning is `choice(…, replace=False)`. */
  permutation(count: number): Int32Array<ArrayBuffer>;
}

/**
 * `numpy.random.RandomState(seed)`, to the bit; also what `numpy.random.seed(seed)` starts.
 * @param seed an integer from 0 to 2³² − 1
 * @throws ArgumentError where it is not
 */
export function numpyRandom(seed: number): NumpyRandom {
  if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) throw new ArgumentError('seed', seed, 'an integer from 0 to 2^32 − 1');
  const twister = new MersenneTwister(seed);
  /** An integer from 0 to `most`: as many bits as it needs, drawn until they fit. */
  const below = (most: number): number => {
    if (most === 0) return 0;
    const mask = 2 ** (32 - Math.clz32(most)) - 1;
    for (;;) {
      const value = (twister.word() & mask) >>> 0;
      if (value <= most) return value;
    }
  };
  return {
    uniform: (count) => Float64Array.from({ length: count }, () => {
      const high = twister.word() >>> 5;
      return (high * 2 ** 26 + (twister.word() >>> 6)) * 2 ** -53;
    }),
    integers(low, high, count) {
      checkIntegerRange('NumpyRandom.integers', low, high);
      return Int32Array.from({ length: count }, () => low + below(high - low - 1));
    },
    permutation(count) {
      const order = Int32Array.from({ length: count }, (_, i) => i);
      for (let i = count - 1; i > 0; i--) {
        const j = below(i);
        [order[i], order[j]] = [order[j]!, order[i]!];
      }
      return order;
    },
  };
}
