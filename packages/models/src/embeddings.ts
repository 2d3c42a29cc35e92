import { sineCosine } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';

/**
 * Sinusoidal timestep embedding: cosines of t·ω in the first half, sines in the second, ωᵢ = 10000^(−i/half); a zero at
 * the end where `features` is odd. Upstream: `TimestepEmbedder.timestep_embedding`.
 *
 * @param t `[N]` float32; DiT in [0, 1000), SiT in [0, 1]
 * @returns `[N, features]`
 */
export function timestepEmbedding(t: tf.Tensor1D, features: number, maxPeriod = 10000): tf.Tensor2D {
  return tf.tidy(() => {
    const half = Math.floor(features / 2);
    // rounded to float32 where PyTorch rounds: late in sampling x₀ shows these bits magnified
    const frequencies = Float32Array.from({ length: half }, (_, i) => Math.exp(Math.fround(Math.fround(Math.fround(-Math.log(maxPeriod)) * i) / half)));
    const angles = tf.mul(tf.expandDims(t, 1), tf.expandDims(tf.tensor1d(frequencies), 0));
    const [sine, cosine] = sineCosine(angles);
    const parts: tf.Tensor[] = [cosine, sine];
    if (features % 2 === 1) parts.push(tf.zeros([t.shape[0], 1]));
    return tf.concat(parts, 1) as tf.Tensor2D;
  });
}

/**
 * Fixed 2-D sine-cosine position embedding of a `grid × grid` image of tokens in raster order, computed in float64.
 * The first half of the channels encodes the column, the second the row; in each half sines come before cosines.
 * Upstream: `get_2d_sincos_pos_embed`.
 *
 * @param features D, a multiple of four
 * @param extraTokens rows of zeros in front, for class tokens
 * @returns `[extraTokens + grid², features]`, row-major
 */
export function positionEmbedding(features: number, grid: number, extraTokens = 0): Float32Array<ArrayBuffer> {
  const quarter = features / 4;
  const out = new Float32Array((extraTokens + grid * grid) * features);
  for (let row = 0; row < grid; row++) {
    for (let column = 0; column < grid; column++) {
      const at = (extraTokens + row * grid + column) * features;
      for (let i = 0; i < quarter; i++) {
        const frequency = 1 / 10000 ** (i / quarter);
        out[at + i] = Math.sin(column * frequency);
        out[at + quarter + i] = Math.cos(column * frequency);
        out[at + 2 * quarter + i] = Math.sin(row * frequency);
        out[at + 3 * quarter + i] = Math.cos(row * frequency);
      }
    }
  }
  return out;
}
