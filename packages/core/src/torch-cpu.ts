import { ArgumentError } from './errors.js';
import { checkIntegerRange } from './integer-range.js';
import { MersenneTwister } from './mersenne-twister.js';
import { type Rng, createRng } from './rng.js';
import { areWords } from './saved-words.js';

/** A saved {@link TorchCpuRng}; plain JSON. */
export interface TorchCpuState {
  readonly kind: 'torch-cpu';
  readonly twister: readonly number[];
  /** Half of a pair of normal draws that is still to be given out. */
  readonly spare: number | null;
  /** The lower 32 bits of the seed, which `split` goes by; states saved before it was kept have none. */
  readonly seed?: number;
}

/** PyTorch's random stream on the CPU. */
export interface TorchCpuRng extends Rng {
  /** `count` floats from Exp(1): `torch.empty(count).exponential_()`. */
  exponential(count: number): Float32Array<ArrayBuffer>;
  state(): TorchCpuState;
}

/**
 * The stream that PyTorch draws from on the CPU after `torch.manual_seed(seed)`: `normal` is `torch.randn`, `uniform`
 * `torch.rand`, `integers` `torch.randint`, `permutation` `torch.randperm`, with the same values in the same order
 * (float32, contiguous, `high − low` below 2³²). Uniform and integer draws agree to the bit; normal ones to the last bits of
 * sine and cosine, which PyTorch computes with other approximations.
 *
 * `gumbel` draws −log of {@link TorchCpuRng.exponential}, as `torch.nn.functional.gumbel_softmax` does. `split` gives a
 * stream of ours that depends on the seed alone, as PyTorch has nothing like it.
 *
 * @param seed an integer from 0 to 2^53 − 1, of which the lower 32 bits count, or a saved state
 * @throws ArgumentError where it is neither
 */
export function torchCpu(seed: number | TorchCpuState): TorchCpuRng {
  if (typeof seed === 'number') {
    if (!Number.isSafeInteger(seed) || seed < 0) throw new ArgumentError('seed', seed, 'an integer from 0 to 2^53 − 1');
    return new TorchCpu(new MersenneTwister(seed % 2 ** 32), null, seed % 2 ** 32);
  }
  const { kind, twister, spare, seed: first = twister?.[0] } = (seed ?? {}) as Partial<TorchCpuState>;
  if (kind !== 'torch-cpu' || !areWords(twister, 625) || twister[624]! > 624 || !(spare === null || Number.isFinite(spare)) || !areWords([first], 1)) throw new ArgumentError('seed', seed, 'an integer from 0 to 2^53 − 1, or a saved TorchCpuState');
  return new TorchCpu(MersenneTwister.fromState(twister), spare!, first!);
}

class TorchCpu implements TorchCpuRng {
  readonly #twister: MersenneTwister;
  #spare: number | null;
  readonly #seed: number;

  constructor(twister: MersenneTwister, spare: number | null, seed: number) {
    this.#twister = twister;
    this.#spare = spare;
    this.#seed = seed;
  }

  uniform(count: number): Float32Array<ArrayBuffer> {
    return Float32Array.from({ length: count }, () => this.#float());
  }

  normal(count: number): Float32Array<ArrayBuffer> {
    if (count < BLOCK) return Float32Array.from({ length: count }, () => this.#normalOf53Bits());
    const out = this.uniform(count);
    for (let start = 0; start + BLOCK <= count; start += BLOCK) boxMuller(out.subarray(start, start + BLOCK));
    // what is left over is drawn anew, together with as much before it as makes a block
    if (count % BLOCK !== 0) {
      const tail = out.subarray(count - BLOCK);
      tail.set(this.uniform(BLOCK));
      boxMuller(tail);
    }
    return out;
  }

  exponential(count: number): Float32Array<ArrayBuffer> {
    return Float32Array.from({ length: count }, () => -Math.log1p(-this.#double()));
  }

  gumbel(count: number): Float32Array<ArrayBuffer> {
    return this.exponential(count).map((e) => -Math.log(e));
  }

  integers(low: number, high: number, count: number): Int32Array<ArrayBuffer> {
    checkIntegerRange('Rng.integers', low, high);
    return Int32Array.from({ length: count }, () => low + (this.#twister.word() % (high - low)));
  }

  permutation(count: number): Int32Array<ArrayBuffer> {
    const order = Int32Array.from({ length: count }, (_, i) => i);
    for (let i = 0; i < count - 1; i++) {
      const j = i + (this.#twister.word() % (count - i));
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }

  split(label: string | number): Rng {
    return createRng(this.#seed).split(label);
  }

  state(): TorchCpuState {
    return { kind: 'torch-cpu', twister: this.#twister.state(), spare: this.#spare, seed: this.#seed };
  }

  /** 24 bits in [0, 1). */
  #float(): number {
    return (this.#twister.word() & 0xffffff) * 2 ** -24;
  }

  /** 53 bits in [0, 1). */
  #double(): number {
    const high = this.#twister.word();
    const low = this.#twister.word();
    return ((high & 0x1fffff) * 2 ** 32 + low) * 2 ** -53;
  }

  /** Draws of fewer than 16 values come in pairs in float64, of which the second waits for the next draw. */
  #normalOf53Bits(): number {
    if (this.#spare !== null) {
      const spare = this.#spare;
      this.#spare = null;
      return spare;
    }
    const angle = 2 * Math.PI * this.#double();
    const radius = Math.sqrt(-2 * Math.log1p(-this.#double()));
    this.#spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}

/** Values that PyTorch's vectorised Box–Muller handles together. */
const BLOCK = 16;

/** Turns 16 uniform values into normal ones in place: the first half are radii, the second angles. */
function boxMuller(block: Float32Array): void {
  for (let i = 0; i < BLOCK / 2; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - block[i]!));
    const angle = 2 * Math.PI * block[i + BLOCK / 2]!;
    block[i] = radius * Math.cos(angle);
    block[i + BLOCK / 2] = radius * Math.sin(angle);
  }
}
