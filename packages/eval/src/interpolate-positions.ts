import * as tf from '@tensorflow/tfjs-core';

/** Options of {@link interpolatePositions}: sizes in patches. */
export interface InterpolatePositionsOptions {
  /** Height and width of the grid that the embeddings are for. */
  grid: number;
  rows: number;
  columns: number;
}

/**
 * DINOv2's position embeddings for another grid, bicubic as `torch.nn.functional.interpolate` does it without
 * antialiasing. The scale is that of a size larger by 0.1, which is what the published weights are used with
 * (`interpolate_offset`); a grid that is the trained one stays as it is.
 *
 * @param embeddings `[1, 1 + grid², D]`, the class token's first
 * @returns `[1, 1 + rows · columns, D]`
 */
export function interpolatePositions(embeddings: tf.Tensor3D, { grid, rows, columns }: InterpolatePositionsOptions): tf.Tensor3D {
  if (rows === grid && columns === grid) return tf.clone(embeddings);
  const d = embeddings.shape[2];
  return tf.tidy(() => {
    const [token, patches] = tf.split(embeddings, [1, grid * grid], 1) as [tf.Tensor3D, tf.Tensor3D];
    // both products are of two plain matrices: rows first, then the columns of the transposed grid
    const tall = tf.matMul(cubicWeights(grid, rows), tf.reshape(patches, [grid, grid * d]));
    const turned = tf.transpose(tf.reshape(tall, [rows, grid, d]), [1, 0, 2]);
    const wide = tf.matMul(cubicWeights(grid, columns), tf.reshape(turned, [grid, rows * d]));
    const placed = tf.transpose(tf.reshape(wide, [columns, rows, d]), [1, 0, 2]);
    return tf.concat([token, tf.reshape(placed, [1, rows * columns, d])], 1) as tf.Tensor3D;
  });
}

const OFFSET = 0.1;
/** PyTorch's and OpenCV's; Pillow has −0.5. */
const A = -0.75;

/** `[to, from]`: Keys' cubic at half-pixel centres, edges repeated. */
function cubicWeights(from: number, to: number): tf.Tensor2D {
  const step = from / (to + OFFSET);
  const weights = new Float32Array(to * from);
  for (let o = 0; o < to; o++) {
    const centre = (o + 0.5) * step - 0.5;
    const first = Math.floor(centre) - 1;
    for (let i = first; i < first + 4; i++) weights[o * from + Math.min(from - 1, Math.max(0, i))]! += cubic(Math.abs(i - centre));
  }
  return tf.tensor2d(weights, [to, from]);
}

const cubic = (x: number): number => (x <= 1 ? ((A + 2) * x - (A + 3)) * x * x + 1 : x < 2 ? ((x - 5) * x + 8) * A * x - 4 * A : 0);
