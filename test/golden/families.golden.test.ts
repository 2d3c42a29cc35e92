import { expect, it } from 'vitest';
import { goldenNames } from './harness.js';

/** Prefix of a case's file name → the suite that runs it. A case of no family is a failure, not a skip. */
const families: Readonly<Record<string, string>> = {
  dit_: 'dit',
  embeddings: 'dit',
  gaussian_: 'gaussian',
  inception_: 'inception',
  mar_: 'mar',
  metrics_: 'metrics',
  optimizer_: 'optimizer',
  preprocess_: 'preprocess',
  rng_: 'rng',
  sit_: 'sit',
  tinyfusion_: 'tinyfusion',
  vae_: 'vae',
};

it.each(goldenNames())('%s belongs to a suite', (name) => {
  expect(Object.keys(families).find((prefix) => name.startsWith(prefix)), `no suite claims ${name}`).toBeDefined();
});
