import { ArgumentError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { freeingTape } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';

/** Options of {@link taylorImportance}. */
export interface TaylorOptions extends LongTaskOptions {
  /** Number of timesteps that the loss can be asked for, from the cleanest. */
  steps: number;
  /**
   * The end of the accumulation: the first timestep whose loss is below `threshold` times the largest so far, as later
   * ones contribute little. 0 takes all. Default 0.01, the reference script's.
   */
  threshold?: number;
  /**
   * `'sum'`: |Σ g·θ|, the first-order change of the loss when a block's parameters all become zero, which makes a
   * residual block the identity. `'elements'`: Σ |g·θ|, what the reference's importance sums over a structure; holds one
   * gradient for each parameter. Default `'sum'`.
   */
  over?: 'sum' | 'elements';
}

/** What {@link taylorImportance} found. */
export interface TaylorImportance {
  /** One a block; the least important are to go. */
  importance: number[];
  /** Timesteps that were accumulated. */
  steps: number;
}

/**
 * Diff-Pruning's criterion (Fang et al. 2023) for whole blocks: with G = Σₜ ∂Lₜ/∂θ over the timesteps t = 0, 1, … whose
 * loss matters (Lₜ ≥ threshold · max Lₛ, s ≤ t), a block's importance is |Σ Gᵢθᵢ| over all its parameters i. Upstream
 * applies it to channels; `leastRedundant` takes it with its sign turned.
 *
 * @param blocks modules, or anything with parameters
 * @param loss of one timestep, t = 0 being the cleanest; the same data and noise for each, in a tidy
 * @throws ArgumentError where there are no blocks, one has no parameters, a loss is not finite, or none of it comes from the blocks
 */
export async function taylorImportance(
  blocks: readonly { parameters(): tf.Variable[] }[],
  loss: (step: number) => tf.Scalar,
  { steps, threshold = 0.01, over = 'sum', signal, onProgress }: TaylorOptions,
): Promise<TaylorImportance> {
  if (!Number.isInteger(steps) || steps < 1) throw new ArgumentError('taylorImportance: steps', steps, 'a positive integer');
  if (!(threshold >= 0 && threshold < 1)) throw new ArgumentError('taylorImportance: threshold', threshold, 'a number in [0, 1)');
  const parameters = blocks.map((block) => block.parameters());
  const empty = parameters.findIndex((list) => list.length === 0);
  if (blocks.length === 0 || empty >= 0) throw new ArgumentError('taylorImportance: blocks', empty < 0 ? 'empty' : `without parameters at ${empty}`, 'blocks with trainable parameters');
  const all = parameters.flat();
  const sums: (tf.Tensor | undefined)[] = all.map(() => undefined);
  let [largest, taken] = [0, 0];
  try {
    for (let step = 0; step < steps; step++) {
      throwIfCancelled(signal, 'taylor');
      const { value, grads } = gradientsOf(() => loss(step), all);
      try {
        const current = (await value.data())[0]!;
        if (!Number.isFinite(current)) throw new ArgumentError(`taylorImportance: loss at step ${step}`, current, 'a finite number');
        largest = Math.max(largest, current);
        if (current < largest * threshold) break;
        for (const [i, parameter] of all.entries()) {
          const gradient = grads[parameter.name] as tf.Tensor | null | undefined;
          if (gradient === null || gradient === undefined) continue; // the loss does not depend on it
          const sum = tf.tidy(() => {
            const product = tf.mul(gradient, parameter);
            const term = over === 'sum' ? tf.sum(product) : product;
            return tf.keep(sums[i] === undefined ? term : tf.add(sums[i], term));
          });
          sums[i]?.dispose();
          sums[i] = sum;
        }
        taken += 1;
      } finally {
        tf.dispose([value, grads]);
      }
      onProgress?.({ task: 'taylor', step: step + 1, total: steps, unit: 'timestep' });
    }
    if (taken < steps) onProgress?.({ task: 'taylor', step: steps, total: steps, unit: 'timestep', note: `the loss fell below ${threshold} of its largest after ${taken}` });
    const values = await Promise.all(sums.map(async (sum) => (sum === undefined ? 0 : absolute(await sum.data(), over))));
    let at = 0;
    const importance = parameters.map((list) => {
      const own = values.slice(at, (at += list.length)).reduce((a, b) => a + b, 0);
      return Math.abs(own);
    });
    return { importance, steps: taken };
  } finally {
    tf.dispose(sums.filter((sum) => sum !== undefined));
  }
}

function gradientsOf(loss: () => tf.Scalar, parameters: tf.Variable[]): ReturnType<typeof tf.variableGrads> {
  try {
    return freeingTape(() => tf.variableGrads(loss, parameters));
  } catch (error) {
    if (error instanceof Error && error.message.startsWith('Cannot find a connection')) throw new ArgumentError('taylorImportance: loss', 'independent of the blocks', 'a loss that is computed with their parameters');
    throw error;
  }
}

/** The one value as it is, or the sum of all values' sizes. */
function absolute(values: ArrayLike<number>, over: 'sum' | 'elements'): number {
  if (over === 'sum') return values[0]!;
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += Math.abs(values[i]!);
  return sum;
}
