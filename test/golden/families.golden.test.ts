import { expect, it } from 'vitest';
import { goldenNames } from './harness.js';

/** Prefix of the case's file name → the suite that runs it, or why none does yet. */
const families: readonly { prefix: string; suite?: string; missing?: string }[] = [
  { prefix: 'dit_', suite: 'dit' },
  { prefix: 'embeddings', suite: 'dit' },
  { prefix: 'gaussian_', suite: 'gaussian' },
  { prefix: 'tinyfusion_', suite: 'tinyfusion' },
  { prefix: 'metrics_', suite: 'metrics' },
  { prefix: 'optimizer_', suite: 'optimizer' },
  { prefix: 'vae_', suite: 'vae' },
  { prefix: 'sit_', suite: 'sit' },
  { prefix: 'mar_', suite: 'mar' },
  { prefix: 'inception_', missing: 'the Inception network is not built yet' },
  { prefix: 'preprocess_', missing: "Pillow's resampling is not built yet" },
  { prefix: 'rng_', suite: 'rng' },
];

for (const name of goldenNames()) {
  const family = families.find(({ prefix }) => name.startsWith(prefix));
  if (family?.missing === undefined) it(`${name} belongs to a suite`, () => expect(family?.suite, `no suite claims ${name}`).toBeDefined());
  else it.skip(`${name}: ${family.missing}`, () => {});
}
