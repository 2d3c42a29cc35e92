import { ArgumentError } from './errors.js';
import { checkIntegerRange } from './integer-range.js';
import { philox4x32 } from './philox.js';
import { areWords, isCount } from './saved-words.js';
import type { RngState } from './restore-rng.js';

/** Everything needed to go on with a stream where it stood; plain JSON. */
export interface PhiloxState {
  readonly kind: 'philox4x32';
  /** Two 32-bit words that name the stream. */
  readonly key: readonly [number, number];
  /** Blocks of four words drawn so far (below 2^53). */
  readonly counter: number;
}

/**
 * A seeded random stream. Draws are deterministic functions of the seed and of the calls made so far, on every
 * platform. All arrays are fresh and belong to the caller.
 */
export interface Rng {
  /** `count` floats, uniform in [0, 1), 24 bits each. */
  uniform(count: number): Float32Array<ArrayBuffer>;
  /** `count` floats from N(0, 1). */
  normal(count: number): Float32Array<ArrayBuffer>;
  /** `count` floats from the standard Gumbel distribution, −log(−log u). */
  gumbel(count: number): Float32Array<ArrayBuffer>;
  /** `count` integers, uniform in [low, high). @throws ArgumentError where these are none, or beyond −2³¹ to 2³¹ */
  integers(low: number, high: number, count: number): Int32Array<ArrayBuffer>;
  /** A uniformly random order of 0 … count − 1. */
  permutation(count: number): Int32Array<ArrayBuffer>;
  /** A stream of its own, independent of this one and of every other label; does not advance this one. */
  split(label: string | number): Rng;
  /** The position, for checkpoints; `restoreRng` goes on from it. */
  state(): RngState;
  /** Moves on as `normal(count)` does, without drawing; only streams have it that can. For those who draw the same elsewhere. */
  skipNormal?(count: number): void;
}

/** The stream of {@link createRng}. */
export interface PhiloxRng extends Rng {
  state(): PhiloxState;
}

/**
 * The default stream: Philox 4×32-10 (Salmon et al. 2011), counter-based, so that splitting and saving are exact.
 *
 * @param seed a non-negative safe integer, or a saved {@link PhiloxState}
 * @throws ArgumentError where the seed is neither
 */
export function createRng(seed: number | PhiloxState): PhiloxRng {
  if (typeof seed === 'number') {
    if (!Number.isSafeInteger(seed) || seed < 0) throw new ArgumentError('seed', seed, 'an integer from 0 to 2^53 − 1');
    return new Philox(seed >>> 0, Math.floor(seed / 2 ** 32), 0);
  }
  const { kind, key, counter } = (seed ?? {}) as Partial<PhiloxState>;
  if (kind !== 'philox4x32' || !areWords(key, 2) || !isCount(counter)) throw new ArgumentError('seed', seed, 'an integer from 0 to 2^53 − 1, or a saved PhiloxState');
  return new Philox(key[0]!, key[1]!, counter);
}

/**
 * Numbers `start` to `start + size` of what `rng.normal(count)` draws; the stream then stands where that call would leave it. A
 * rank's share of a batch's noise costs its share where the stream is {@link createRng}'s; of others all are drawn.
 */
export function partOfNormal(rng: Rng, count: number, { start, size }: { start: number; size: number }): Float32Array<ArrayBuffer> {
  if (!Number.isInteger(start) || !Number.isInteger(size) || start < 0 || size < 0 || start + size > count) throw new ArgumentError('partOfNormal: part', [start, start + size], `inside of the ${count} numbers`);
  return rng instanceof Philox ? rng.partOfNormal(count, start, size) : rng.normal(count).slice(start, start + size);
}

class Philox implements PhiloxRng {
  constructor(
    private readonly key0: number,
    private readonly key1: number,
    private counter: number,
  ) {}

  uniform(count: number): Float32Array<ArrayBuffer> {
    const words = this.words(count);
    return Float32Array.from(words, (w) => (w >>> 8) * 2 ** -24);
  }

  normal(count: number): Float32Array<ArrayBuffer> {
    const words = this.words(count + (count & 1));
    const out = new Float32Array(count);
    for (let i = 0; i < count; i += 2) {
      // Box–Muller on u in (0, 1], so that the logarithm is finite
      const radius = Math.sqrt(-2 * Math.log((words[i]! + 1) * 2 ** -32));
      const angle = 2 * Math.PI * (words[i + 1]! * 2 ** -32);
      out[i] = radius * Math.cos(angle);
      if (i + 1 < count) out[i + 1] = radius * Math.sin(angle);
    }
    return out;
  }

  partOfNormal(count: number, start: number, size: number): Float32Array<ArrayBuffer> {
    const first = start >>> 2; // a block of four words makes four numbers
    const own = new Philox(this.key0, this.key1, this.counter + first).normal(start + size - 4 * first);
    this.counter += Math.ceil(count / 4);
    return start === 4 * first ? own : own.slice(start - 4 * first);
  }

  gumbel(count: number): Float32Array<ArrayBuffer> {
    const words = this.words(count);
    return Float32Array.from(words, (w) => -Math.log(-Math.log((w + 0.5) * 2 ** -32)));
  }

  integers(low: number, high: number, count: number): Int32Array<ArrayBuffer> {
    checkIntegerRange('Rng.integers', low, high);
    const range = high - low;
    // 53 random bits an integer: the bias is below range / 2^53
    const words = this.words(2 * count);
    const out = new Int32Array(count);
    for (let i = 0; i < count; i++) out[i] = low + Math.floor(((words[2 * i]! >>> 5) * 2 ** 26 + (words[2 * i + 1]! >>> 6)) * 2 ** -53 * range);
    return out;
  }

  permutation(count: number): Int32Array<ArrayBuffer> {
    const order = Int32Array.from({ length: count }, (_, i) => i);
    const words = this.words(2 * count);
    for (let i = count - 1; i > 0; i--) {
      const j = Math.floor(((words[2 * i]! >>> 5) * 2 ** 26 + (words[2 * i + 1]! >>> 6)) * 2 ** -53 * (i + 1));
      const swapped = order[i]!;
      order[i] = order[j]!;
      order[j] = swapped;
    }
    return order;
  }

  split(label: string | number): Rng {
    // the child's key is a block of the parent's key at a counter that draws cannot reach (its upper words are set)
    const text = String(label);
    let hash = 0x811c9dc5;
    let second = 0x9747b28c;
    for (let i = 0; i < text.length; i++) {
      hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
      second = Math.imul(second ^ text.charCodeAt(i), 0x85ebca6b) ^ (second >>> 13);
    }
    const block = new Uint32Array(4);
    philox4x32([hash >>> 0, second >>> 0, text.length, 0x73706c69], [this.key0, this.key1], block, 0);
    return new Philox(block[0]!, block[1]!, 0);
  }

  skipNormal(count: number): void {
    this.counter += Math.ceil((count + (count & 1)) / 4);
  }

  state(): PhiloxState {
    return { kind: 'philox4x32', key: [this.key0, this.key1], counter: this.counter };
  }

  /** Whole blocks only: what a call leaves over is dropped, so that a call's draws depend on the block count alone. */
  private words(count: number): Uint32Array {
    const blocks = Math.ceil(count / 4);
    const out = new Uint32Array(blocks * 4);
    for (let i = 0; i < blocks; i++) {
      const at = this.counter + i;
      philox4x32([at >>> 0, Math.floor(at / 2 ** 32), 0, 0], [this.key0, this.key1], out, 4 * i);
    }
    this.counter += blocks;
    return out.length === count ? out : out.subarray(0, count);
  }
}
