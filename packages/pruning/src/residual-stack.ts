import { ArgumentError } from '@tinyfusion/core';
import type { BlockHook, BlockSite } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';

/**
 * A model on fixed data as a stack of residual blocks: what comes before them, each block, and the loss after them. The
 * tensors it gives belong to the caller.
 */
export interface ResidualStack {
  readonly depth: number;
  /** The first block's input. */
  start(): tf.Tensor;
  /** One block; `x` is borrowed. */
  block(index: number, x: tf.Tensor): tf.Tensor;
  /** The loss; `x` is borrowed until the answer is there. */
  finish(x: tf.Tensor): number | Promise<number>;
}

/** A model on fixed data that takes hooks. */
export interface HookedModel {
  /** Number of blocks; where masks count over several stacks, the stacks' depths by name, in the order in which they run. */
  readonly depth: number | Readonly<Record<string, number>>;
  /** The loss under a hook: the same data, noise and forward passes at every call. */
  loss(hook: BlockHook): number | Promise<number>;
}

/** Runs one mask after the other. */
export interface MaskRunner {
  readonly depth: number;
  /**
   * The loss with a mask.
   * @param shared how many of its first blocks it has in common with the mask before
   * @param next how many with the mask after: so many states are worth holding on to
   */
  run(mask: readonly number[], shared: number, next: number): Promise<number>;
  dispose(): void;
}

/** Runs masks on a stack and holds on to the states that the next masks share. */
export class StackRunner implements MaskRunner {
  /** After 0, 1, … kept blocks of the current prefix. */
  readonly #states: tf.Tensor[] = [];

  constructor(readonly stack: ResidualStack) {}

  get depth(): number {
    return this.stack.depth;
  }

  async run(mask: readonly number[], shared: number, next: number): Promise<number> {
    const states = this.#states;
    tf.dispose(states.splice(shared + 1));
    if (states.length === 0) states.push(tf.tidy(() => this.stack.start()));
    let x = states[shared]!;
    let own = false;
    try {
      for (let p = shared; p < mask.length; p++) {
        const y = tf.tidy(() => {
          const out = this.stack.block(mask[p]!, x);
          return out === x ? tf.clone(x) : out;
        });
        if (own) x.dispose();
        own = p + 1 > next;
        if (!own) states.push(y);
        x = y;
      }
      return await this.stack.finish(x);
    } finally {
      if (own) x.dispose();
    }
  }

  dispose(): void {
    tf.dispose(this.#states.splice(0));
  }
}

/**
 * The same through a model's hooks: blocks before the shared state are passed over, and where the last of them would run,
 * the state takes its place. What surrounds the blocks is computed for every mask.
 */
export class HookRunner implements MaskRunner {
  readonly depth: number;
  readonly #starts: ReadonlyMap<string, number> | undefined;
  #only: string | undefined;
  /** One list a forward pass of the loss. */
  readonly #states: tf.Tensor3D[][] = [];

  constructor(readonly model: HookedModel) {
    if (typeof model.depth === 'number') this.depth = model.depth;
    else {
      const starts = new Map<string, number>();
      let total = 0;
      for (const [name, depth] of Object.entries(model.depth)) {
        starts.set(name, total);
        total += depth;
      }
      this.depth = total;
      this.#starts = starts;
    }
  }

  async run(mask: readonly number[], shared: number, next: number): Promise<number> {
    for (const states of this.#states) tf.dispose(states.splice(shared));
    const places = new Map(mask.map((block, place) => [block, place]));
    const reached = shared === 0 ? -1 : mask[shared - 1]!;
    let pass = -1;
    return this.model.loss((site, x, run) => {
      const start = this.#startOf(site);
      if (start === undefined) return run(x); // not one of the stacks that are studied
      const block = start + site.index;
      if (block === 0) pass += 1;
      const states = (this.#states[pass] ??= []);
      if (block < reached) return x;
      if (block === reached) return tf.clone(states[shared - 1]!);
      const place = places.get(block);
      if (place === undefined) return x;
      const y = run(x);
      if (place < next) states[place] = tf.keep(tf.clone(y));
      return y;
    });
  }

  dispose(): void {
    for (const states of this.#states.splice(0)) tf.dispose(states);
  }

  /** Where a stack begins among all blocks; nothing for one that is not studied. */
  #startOf({ stack, depth }: BlockSite): number | undefined {
    const { depth: expected } = this.model;
    if (typeof expected !== 'number') {
      if (Object.hasOwn(expected, stack) && expected[stack] !== depth) throw new ArgumentError(`depth of ${stack}`, expected[stack], `the model's ${depth}`);
      return this.#starts!.get(stack);
    }
    this.#only ??= stack;
    if (stack !== this.#only) throw new ArgumentError('depth', expected, `the depth of each stack by name, as the model has ${this.#only} and ${stack}`);
    if (depth !== expected) throw new ArgumentError('depth', expected, `the model's ${depth}`);
    return 0;
  }
}
