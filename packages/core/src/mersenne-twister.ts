/** MT19937 (Matsumoto & Nishimura 1998), the generator behind PyTorch's CPU streams and numpy's `RandomState`. */
export class MersenneTwister {
  readonly #words = new Uint32Array(N);
  #next = N;

  /** @param seed its lower 32 bits count */
  constructor(seed: number) {
    this.#words[0] = seed >>> 0;
    for (let i = 1; i < N; i++) {
      const last = this.#words[i - 1]! ^ (this.#words[i - 1]! >>> 30);
      this.#words[i] = Math.imul(1812433253, last) + i;
    }
  }

  /** The next 32 random bits, as an unsigned integer. */
  word(): number {
    if (this.#next === N) this.#refill();
    let y = this.#words[this.#next++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** The position: 624 words, and how many of them are used up. */
  state(): number[] {
    return [...this.#words, this.#next];
  }

  static fromState(state: readonly number[]): MersenneTwister {
    const twister = new MersenneTwister(0);
    twister.#words.set(state.slice(0, N));
    twister.#next = state[N]!;
    return twister;
  }

  #refill(): void {
    const words = this.#words;
    for (let i = 0; i < N; i++) {
      const y = (words[i]! & 0x80000000) | (words[(i + 1) % N]! & 0x7fffffff);
      words[i] = words[(i + M) % N]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#next = 0;
  }
}

const N = 624;
const M = 397;
