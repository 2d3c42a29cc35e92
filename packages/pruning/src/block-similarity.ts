import { ArgumentError } from '@tinyfusion/core';
import type { BlockHook } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { type HsicEstimator, centredGram, hsic } from './cka.js';

/** Options of {@link BlockSimilarity}. */
export interface BlockSimilarityOptions {
  /** What is compared: whole samples (tokens side by side), or every token; then a batch needs (N·T)² values a boundary. Default `'samples'`. */
  rows?: 'samples' | 'tokens';
  /** Default `'unbiased'`, which small batches do not inflate (Nguyen et al. 2021). */
  estimator?: HsicEstimator;
}

/**
 * Linear CKA (Kornblith et al. 2019) between the hidden states at all block boundaries of a stack: boundary i is the input
 * of block i, boundary L the output of the last. CKA = HSIC(X, Y) / √(HSIC(X, X) · HSIC(Y, Y)), each HSIC averaged over
 * the batches before the quotient is taken (Nguyen et al. 2021). 1 − CKA of boundaries i and j says how much the blocks
 * i … j − 1 change the representation; `chooseIntervals` removes the runs that change it least.
 */
export class BlockSimilarity {
  readonly #rows: 'samples' | 'tokens';
  readonly #estimator: HsicEstimator;
  #grams: tf.Tensor2D[] = [];
  #sums: Float64Array | undefined;
  #boundaries = 0;
  #depth = 0;

  constructor({ rows = 'samples', estimator = 'unbiased' }: BlockSimilarityOptions = {}) {
    this.#rows = rows;
    this.#estimator = estimator;
  }

  /** Measures while a model runs with all its blocks; call {@link endBatch} after each forward pass. */
  readonly hook: BlockHook = (site, x, run) => {
    if (site.index === 0) this.#add(x);
    this.#depth = site.depth;
    const y = run(x);
    this.#add(y);
    return y;
  };

  /**
   * Ends a batch: reads its Gram matrices back and adds them in float64.
   * @throws ArgumentError where blocks were left out, or there are too few rows
   */
  async endBatch(): Promise<void> {
    const grams = this.#grams;
    this.#grams = [];
    try {
      const count = grams.length;
      const expected = this.#boundaries === 0 ? this.#depth + 1 : this.#boundaries;
      if (count < 2 || count !== expected) throw new ArgumentError('BlockSimilarity.endBatch: boundaries', count, count === 0 ? 'a forward pass before it' : `${expected}: one forward pass of all blocks a batch`);
      const n = grams[0]!.shape[0];
      const centred: Float64Array[] = [];
      for (const gram of grams) centred.push(centredGram(await gram.data(), n, this.#estimator));
      this.#boundaries = count;
      this.#sums ??= new Float64Array(count * count);
      for (let i = 0; i < count; i++) for (let j = i; j < count; j++) this.#sums[i * count + j]! += hsic(centred[i]!, centred[j]!, n, this.#estimator);
    } finally {
      tf.dispose(grams);
    }
  }

  /**
   * CKA of each pair of boundaries, `[L + 1][L + 1]`, symmetric with ones on its diagonal; and an end to the measurement.
   * @throws ArgumentError where no batch was ended, or a hidden state is not finite
   */
  similarity(): number[][] {
    const [count, sums] = [this.#boundaries, this.#sums];
    if (sums === undefined) throw new ArgumentError('BlockSimilarity.similarity: batches', 0, 'at least one; call endBatch after each forward pass');
    if (!sums.every(Number.isFinite)) throw new ArgumentError('BlockSimilarity: similarity of hidden states', NaN, 'a finite number; the model or its inputs hold values that are none');
    const at = (i: number, j: number): number => sums[Math.min(i, j) * count + Math.max(i, j)]!;
    const matrix = Array.from({ length: count }, (_, i) =>
      Array.from({ length: count }, (_, j) => {
        if (i === j) return 1;
        const scale = Math.sqrt(at(i, i) * at(j, j));
        return scale > 0 ? at(i, j) / scale : 0; // a state that does not vary is like no other
      }),
    );
    this.dispose();
    return matrix;
  }

  dispose(): void {
    tf.dispose(this.#grams);
    this.#grams = [];
    this.#sums = undefined;
    this.#boundaries = 0;
  }

  #add(x: tf.Tensor3D): void {
    this.#grams.push(
      tf.tidy(() => {
        const [n, t, d] = x.shape;
        const rows = tf.reshape(x, this.#rows === 'tokens' ? [n * t, d] : [n, t * d]) as tf.Tensor2D;
        // HSIC does not see a shift; without the mean float32 keeps the digits that matter
        const centred = tf.sub(rows, tf.mean(rows, 0, true)) as tf.Tensor2D;
        return tf.keep(tf.matMul(centred, centred, false, true));
      }),
    );
  }
}
