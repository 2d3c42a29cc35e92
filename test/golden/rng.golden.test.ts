import { numpyRandom, restoreRng, torchCpu } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { type GoldenTensor, expectClose, goldenCases } from './harness.js';

const exact = (label: string, got: ArrayLike<number>, stored: GoldenTensor) => expect(Array.from(got), label).toEqual(Array.from(stored.values, Number));

for (const golden of goldenCases('rng_torch_cpu')) {
  const { seeds, sizes, sequence } = golden.config as { seeds: number[]; sizes: number[]; sequence: string[] };
  for (const seed of seeds) {
    describe(`${golden.name}: seed ${seed}`, () => {
      it('draws what PyTorch draws', async () => {
        for (const n of sizes) {
          await expectClose(`randn(${n})`, torchCpu(seed).normal(n), golden.get(`out.randn.${seed}.${n}`), { absolute: 1e-5 });
          exact(`rand(${n})`, torchCpu(seed).uniform(n), golden.get(`out.rand.${seed}.${n}`));
        }
        const { shape: [integers = 0] } = golden.get(`out.randint1000.${seed}`);
        exact('randint', torchCpu(seed).integers(0, 1000, integers), golden.get(`out.randint1000.${seed}`));
        const { shape: [permuted = 0] } = golden.get(`out.randperm.${seed}`);
        exact('randperm', torchCpu(seed).permutation(permuted), golden.get(`out.randperm.${seed}`));
        const exponential = golden.get(`out.exponential.${seed}`);
        await expectClose('exponential', torchCpu(seed).exponential(exponential.values.length), exponential, { absolute: 1e-5 });
      });

      it('draws a sequence of mixed calls, also from a saved state', async () => {
        let rng = torchCpu(seed);
        for (const [i, call] of sequence.entries()) {
          const stored = golden.get(`out.sequence.${seed}.${i}`);
          const n = stored.values.length;
          const [, name, argument] = /^(\w+?)_?\((.*)\)$/.exec(call)!;
          const numbers = (argument!.match(/\d+/g) ?? []).map(Number);
          const draws: Record<string, () => ArrayLike<number>> = { randn: () => rng.normal(n), rand: () => rng.uniform(n), randint: () => rng.integers(numbers[0]!, numbers[1]!, n), randperm: () => rng.permutation(n), exponential: () => rng.exponential(n) };
          const draw = draws[name!];
          expect(draw, `a draw called ${call}`).toBeDefined();
          await expectClose(call, draw!(), stored, { absolute: 1e-5 });
          rng = restoreRng(JSON.parse(JSON.stringify(rng.state()))) as typeof rng;
        }
      });

      it('draws what numpy draws', () => {
        const sizeOf = (name: string) => golden.get(`out.numpy_${name}.${seed}`).values.length;
        const state = numpyRandom(seed);
        exact('permutation', state.permutation(sizeOf('permutation')), golden.get(`out.numpy_permutation.${seed}`));
        // from the same state, ten of fifty without replacement
        exact('choice', state.permutation(50).subarray(0, sizeOf('choice')), golden.get(`out.numpy_choice.${seed}`));
        exact('shuffle', numpyRandom(seed).permutation(sizeOf('shuffle')), golden.get(`out.numpy_shuffle.${seed}`));
      });
    });
  }
}
