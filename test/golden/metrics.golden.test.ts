import { FeatureStatistics, frechetDistance, inceptionScore, kernelDistance, precisionRecall } from '@tinyfusion/eval';
import { describe, expect, it } from 'vitest';
import { type GoldenTensor, expectClose, goldenCases } from './harness.js';

for (const golden of goldenCases('metrics_')) {
  describe(golden.name, () => {
    const config = golden.config as { dim: number; classes: number; isc: { splits: number }; prc: { k: number } };
    const values = JSON.parse(golden.metadata['values']!) as Record<string, number>;
    const statistics = (name: string) => {
      const { shape, values: rows } = golden.get(name);
      const accumulator = new FeatureStatistics(shape[1]!);
      accumulator.add(rows);
      return accumulator.finish();
    };
    const row = ({ shape, values: all }: GoldenTensor, i: number) => all.slice(i * shape[1]!, (i + 1) * shape[1]!);

    it('has the moments', async () => {
      for (const side of [1, 2]) {
        const { mean, covariance } = statistics(`in.features_${side}`);
        await expectClose('mu', mean, golden.get(`out.mu_${side}`), { absolute: 1e-5 });
        await expectClose('sigma', covariance, golden.get(`out.sigma_${side}`), { absolute: 1e-5, relative: 1e-5 });
      }
    });

    it('has the Fréchet distances', () => {
      const [generated, real] = [statistics('in.features_1'), statistics('in.features_2')];
      const { distance } = frechetDistance(generated, real);
      expect(Math.abs(distance - values['fid_float64']!) / values['fid_float64']!).toBeLessThan(1e-6);
      expect(Math.abs(distance - values['fid_torch_fidelity']!) / distance).toBeLessThan(1e-4);
      const spatial = frechetDistance(statistics('in.spatial_1'), statistics('in.spatial_2')).distance;
      expect(Math.abs(spatial - values['sfid']!) / spatial).toBeLessThan(1e-4);
      expect(Math.abs(frechetDistance(real, real).distance)).toBeLessThan(1e-11);
    });

    it('has the Inception Scores, shuffled and in order', () => {
      const { classes, isc } = config;
      const logits = golden.get('in.logits').values;
      const shuffled = inceptionScore(logits, { classes, splits: isc.splits, order: golden.get('in.isc_permutation').values });
      const plain = inceptionScore(logits, { classes, splits: isc.splits });
      for (const [got, key] of [[shuffled.mean, 'isc_mean'], [shuffled.std, 'isc_std'], [plain.mean, 'isc_noshuffle_mean'], [plain.std, 'isc_noshuffle_std']] as const) {
        expect(Math.abs(got - values[key]!) / values[key]!, key).toBeLessThan(1e-5);
      }
      expect(Math.abs(inceptionScore(logits, { classes, splits: 1 }).mean - values['isc_guided_diffusion']!)).toBeLessThan(1e-4);
    });

    it('has the kernel distance of the recorded subsets', async () => {
      const subsets = golden.get('in.kid_idx_1').shape[0]!;
      const indices = Array.from({ length: subsets }, (_, i) => ({ generated: row(golden.get('in.kid_idx_1'), i), real: row(golden.get('in.kid_idx_2'), i) }));
      const { mean, std } = await kernelDistance(golden.get('in.features_1').values, golden.get('in.features_2').values, { dimension: config.dim, indices });
      expect(Math.abs(mean - values['kid_mean']!)).toBeLessThan(1e-5 + 1e-4 * Math.abs(values['kid_mean']!));
      expect(Math.abs(std - values['kid_std']!)).toBeLessThan(1e-5 + 1e-4 * values['kid_std']!);
    });

    it('has precision and recall', async () => {
      const [generated, real] = [golden.get('in.features_1').values, golden.get('in.features_2').values];
      const at = (neighbours: number) => precisionRecall(generated, real, { dimension: config.dim, neighbours });
      const three = await at(config.prc.k);
      expect(three.precision).toBeCloseTo(values['precision']!, 6);
      expect(three.recall).toBeCloseTo(values['recall']!, 6);
      const five = await at(5);
      expect(five.precision).toBeCloseTo(values['precision_k5']!, 6);
      expect(five.recall).toBeCloseTo(values['recall_k5']!, 6);
    });
  });
}
