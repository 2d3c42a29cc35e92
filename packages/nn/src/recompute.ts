import * as tf from '@tensorflow/tfjs-core';
import type { BlockHook } from './block-hook.js';
import { notingDraws, repeatingDraws } from './repeatable.js';

interface TapeNode {
  id: number;
  kernelName: string;
  inputs: Record<string, tf.Tensor>;
  outputs: tf.Tensor[];
  saved: tf.Tensor[];
  gradient(this: TapeNode, dys: (tf.Tensor | null)[]): Record<string, () => tf.Tensor>;
}

// what this needs of tfjs's engine, which 4.x has had unchanged; the tests hold it to that
interface Engine {
  state: {
    gradientDepth: number;
    kernelDepth: number;
    activeTape: TapeNode[];
    nextTapeNodeId: number;
    scopeStack: { id: number; name: string }[];
  };
  gradients(f: () => tf.Tensor, xs: tf.Tensor[], dy: tf.Tensor, allowNoGradients: boolean): { value: tf.Tensor; grads: (tf.Tensor | undefined)[] };
}

/**
 * Gradient checkpointing (Chen et al. 2016): inside a gradient, a block keeps nothing but its input, and runs a second
 * time when its gradient is wanted. A gradient takes one more forward pass, about 1.4 times the time, and the memory of
 * one block instead of all. Outside of a gradient the block runs as it is. Gradients reach everything the block uses:
 * its input, its weights, and conditions that are closed over.
 *
 * The block must do the same both times: what it draws, as dropout, it draws from {@link repeatable} streams, as our
 * models and adapters do. In `composeHooks` it goes last, as gradients pass by what hooks inside of it hand out.
 */
export function recomputing(): BlockHook {
  return (_site, x, run) => {
    const engine = tf.engine() as unknown as Engine;
    const { state } = engine;
    // a gradient of gradients needs the whole tape
    if (state.gradientDepth !== 1 || state.kernelDepth > 0) return run(x);
    const input = tf.clone(x);
    const { activeTape: tape } = state;
    const start = tape.length;
    const { value: y, draws } = notingDraws(() => run(input));
    const inner = tape.splice(start);
    if (inner.length === 0) return y;
    // what is younger than the input was made inside, constants and dropout's masks too, and is made again
    const used = new Map(inner.flatMap(({ inputs }) => Object.values(inputs).filter(({ id }) => id <= input.id)).map((tensor) => [`${tensor.id}`, tensor]));
    for (const { saved } of inner) tf.dispose(saved);
    tape.push({
      id: state.nextTapeNodeId++,
      kernelName: 'Recomputed',
      inputs: Object.fromEntries(used),
      outputs: [y],
      saved: heldUntilGradient(state.scopeStack, used.values()),
      // the engine calls this on a copy of the node with those inputs alone whose gradients are wanted
      gradient([dy]) {
        const wanted = Object.entries(this.inputs);
        const outer = state.activeTape;
        try {
          const { value, grads } = engine.gradients(() => repeatingDraws(draws, () => run(input)), wanted.map(([, tensor]) => tensor), dy ?? tf.zerosLike(y), true);
          value.dispose();
          return Object.fromEntries(wanted.map(([name, tensor], i) => [name, () => grads[i] ?? tf.zeros(tensor.shape)]));
        } finally {
          state.activeTape = outer;
        }
      },
    });
    return y;
  };
}

/** Keeps those tensors that would be freed with the forward pass, which the second run needs. @returns them: they are freed with the tape */
function heldUntilGradient(scopes: Engine['state']['scopeStack'], tensors: Iterable<tf.Tensor>): tf.Tensor[] {
  const inside = new Set(scopes.slice(scopes.findLastIndex(({ name }) => name === 'forward')).map(({ id }) => id));
  const held = [...tensors].filter((tensor) => !(tensor instanceof tf.Variable) && !tensor.kept && inside.has((tensor as unknown as { scopeId: number }).scopeId));
  return held.map((tensor) => tf.keep(tensor));
}
