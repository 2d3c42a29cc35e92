import { ArgumentError } from './errors.js';
import { checkIntegerRange } from './integer-range.js';
import { philox4x32 } from './philox.js';
import { type Rng, createRng } from './rng.js';
import { isCount } from './saved-words.js';

/** A saved {@link torchCuda}; plain JSON. */
export interface TorchCudaState {
  readonly kind: 'torch-cuda';
  readonly seed: number;
  /** Words of the stream that every thread has used up. */
  readonly offset: number;
  readonly threads: number;
}

/** PyTorch's random stream on a CUDA device. */
export interface TorchCudaRng extends Rng {
  state(): TorchCudaState;
}

/** The card that PyTorch ran on; it decides the order of draws longer than `multiprocessors · threads` values. */
export interface TorchCudaOptions {
  /** Default 108, an A100's. V100: 80, RTX 3090: 82, H100: 132. */
  multiprocessors?: number;
  /** Threads of a multiprocessor. Default 2048, an A100's; RTX 3090: 1536. */
  threadsPerMultiprocessor?: number;
}

/**
 * The stream that PyTorch draws from on a CUDA device after `torch.manual_seed(seed)`: Philox 4×32-10, one subsequence a
 * thread, four values a call, as PyTorch's grid-stride kernels consume it. `normal` is `torch.randn`, `uniform`
 * `torch.rand`, `integers` `torch.randint` and `permutation` `torch.randperm` on the device (PyTorch 1.10 and later; for
 * ranges of 2²⁸ and more, which permutations use for their keys, as before 2.7). Draws of up to
 * `multiprocessors · threadsPerMultiprocessor` values, which are all latents of a batch of 50, are the same on every card.
 *
 * `normal` and `uniform` are checked against values that PyTorch printed on three cards; `integers` and `permutation`
 * follow its kernels, and were not compared with a device. `gumbel` draws −log of an exponential, `split` gives a stream of ours, as PyTorch has nothing like it.
 *
 * @param seed an integer from 0 to 2^53 − 1, or a saved state
 * @throws ArgumentError where it is neither
 */
export function torchCuda(seed: number | TorchCudaState, { multiprocessors = 108, threadsPerMultiprocessor = 2048 }: TorchCudaOptions = {}): TorchCudaRng {
  if (typeof seed !== 'number') {
    const { kind, seed: first, offset, threads } = (seed ?? {}) as Partial<TorchCudaState>;
    const whole = isCount(first) && isCount(offset) && offset % 4 === 0 && isCount(threads) && threads > 0 && threads % BLOCK === 0;
    if (kind !== 'torch-cuda' || !whole) throw new ArgumentError('seed', seed, 'an integer from 0 to 2^53 − 1, or a saved TorchCudaState');
    return new TorchCuda(first, offset, threads);
  }
  if (!Number.isSafeInteger(seed) || seed < 0) throw new ArgumentError('seed', seed, 'an integer from 0 to 2^53 − 1');
  for (const [name, value] of [['multiprocessors', multiprocessors], ['threadsPerMultiprocessor', threadsPerMultiprocessor]] as const) {
    if (!Number.isInteger(value) || value < 1) throw new ArgumentError(`TorchCudaOptions.${name}`, value, 'a positive integer');
  }
  if (threadsPerMultiprocessor < BLOCK) throw new ArgumentError('TorchCudaOptions.threadsPerMultiprocessor', threadsPerMultiprocessor, `at least the ${BLOCK} of a block`);
  return new TorchCuda(seed, 0, multiprocessors * Math.floor(threadsPerMultiprocessor / BLOCK) * BLOCK);
}

/** Threads of a block. */
const BLOCK = 256;

class TorchCuda implements TorchCudaRng {
  constructor(
    private readonly seed: number,
    private offset: number,
    /** Most threads that run at once. */
    private readonly threads: number,
  ) {}

  uniform(count: number): Float32Array<ArrayBuffer> {
    const out = new Float32Array(count);
    // curand gives (0, 1], PyTorch turns the 1 into 0
    this.draw(count, 4, (words, place) => {
      for (let k = 0; k < 4; k++) place(k, (i) => {
        const u = unit(words[k]!);
        out[i] = u === 1 ? 0 : u;
      });
    });
    return out;
  }

  normal(count: number): Float32Array<ArrayBuffer> {
    const out = new Float32Array(count);
    this.draw(count, 4, (words, place) => {
      for (const k of [0, 2]) {
        const radius = Math.sqrt(-2 * Math.log(unit(words[k]!)));
        const angle = Math.fround(words[k + 1]! * ANGLE + ANGLE / 2);
        place(k, (i) => (out[i] = radius * Math.sin(angle)));
        place(k + 1, (i) => (out[i] = radius * Math.cos(angle)));
      }
    });
    return out;
  }

  gumbel(count: number): Float32Array<ArrayBuffer> {
    // an exponential is −log of (0, 1], its largest value cut off
    const out = new Float32Array(count);
    this.draw(count, 4, (words, place) => {
      for (let k = 0; k < 4; k++) place(k, (i) => {
        const u = unit(words[k]!);
        out[i] = -Math.log(u >= 1 - 2 ** -24 ? 2 ** -24 : -Math.log(u));
      });
    });
    return out;
  }

  integers(low: number, high: number, count: number): Int32Array<ArrayBuffer> {
    checkIntegerRange('Rng.integers', low, high);
    const out = new Int32Array(count);
    this.draw(count, 4, (words, place) => {
      for (let k = 0; k < 4; k++) place(k, (i) => (out[i] = low + (words[k]! % (high - low))));
    });
    return out;
  }

  /** Sorts by random keys of as many bits as make equal keys unlikely, then shuffles where keys are equal. */
  permutation(count: number): Int32Array<ArrayBuffer> {
    if (count === 0) return new Int32Array(0);
    const bits = Math.min(64, Math.ceil(Math.log2(count - (6 * count * count + 1) / (12 * Math.log(0.9)))));
    if (bits > 32) throw new ArgumentError('Rng.permutation: count', count, 'at most 20,000 or so, as longer ones use keys of 64 bits');
    const keys = this.integers(-(2 ** 31), 2 ** 31 - 1, count);
    const low = (i: number) => (bits === 32 ? keys[i]! + 2 ** 31 : (keys[i]! & (2 ** bits - 1)) >>> 0);
    const order = Int32Array.from({ length: count }, (_, i) => i).toSorted((a, b) => low(a) - low(b) || a - b) as Int32Array<ArrayBuffer>;
    const offset = this.advance(count);
    for (let start = 0; start < count; ) {
      let end = start + 1;
      while (end < count && low(order[end]!) === low(order[start]!)) end++;
      for (let i = end - start - 1, drawn = 0; i > 0; i--, drawn++) {
        const r = this.words(start, offset + 4 * Math.floor(drawn / 4))[drawn % 4]! % (i + 1);
        [order[start + i], order[start + r]] = [order[start + r]!, order[start + i]!];
      }
      start = end;
    }
    return order;
  }

  split(label: string | number): Rng {
    return createRng(this.seed).split(label);
  }

  state(): TorchCudaState {
    return { kind: 'torch-cuda', seed: this.seed, offset: this.offset, threads: this.threads };
  }

  /** One kernel of `count` values: every thread draws `unroll` values at a time and places them a grid apart. */
  private draw(count: number, unroll: number, give: (words: Uint32Array, place: (k: number, put: (index: number) => void) => void) => void): void {
    if (count === 0) return;
    const grid = Math.min(this.threads, Math.ceil(count / BLOCK) * BLOCK);
    const rounds = Math.floor((count - 1) / (grid * unroll)) + 1;
    const offset = this.advance(4 * rounds);
    for (let round = 0; round < rounds; round++) {
      for (let thread = 0; thread < grid; thread++) {
        const first = round * grid * unroll + thread;
        if (first >= count) break;
        give(this.words(thread, offset + 4 * round), (k, put) => {
          const index = first + k * grid;
          if (index < count) put(index);
        });
      }
    }
  }

  /** The offset before, and on by a multiple of four. */
  private advance(by: number): number {
    const before = this.offset;
    this.offset += Math.ceil(by / 4) * 4;
    return before;
  }

  private words(subsequence: number, offset: number): Uint32Array {
    const block = offset / 4;
    const out = new Uint32Array(4);
    philox4x32([block >>> 0, Math.floor(block / 2 ** 32), subsequence, 0], [this.seed >>> 0, Math.floor(this.seed / 2 ** 32)], out, 0);
    return out;
  }
}

/** curand's float in (0, 1]. */
const unit = (word: number): number => Math.fround(Math.fround(word) * 2 ** -32 + 2 ** -33);

/** curand's angle of one unit, 2π/2³², as a float. */
const ANGLE = Math.fround(2 ** -32 * 6.2831855);
