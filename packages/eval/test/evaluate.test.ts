import { createRng } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { type ExtractedFeatures, type FeatureNetwork, evaluate, frechetDistance, inceptionScore, precisionRecall, statisticsOf } from '../src/index.js';
import { correlatedRows } from './gaussians.js';

const [dimension, classes] = [6, 4];
const network: FeatureNetwork = {
  name: 'test network',
  inputSize: 1,
  dimension,
  classes,
  comparable: true,
  run: () => {
    throw new Error('features are here already');
  },
};

function extracted(count: number, seed: number, of: FeatureNetwork = network): ExtractedFeatures {
  const { name, version } = of;
  return {
    count,
    features: correlatedRows(count, dimension, seed),
    logits: createRng(seed).normal(count * classes),
    provenance: { network: name, ...(version === undefined ? {} : { version }), resize: 'none', images: count, warnings: [] },
  };
}

describe('evaluate', () => {
  const [generated, real] = [extracted(80, 1), extracted(90, 2)];

  it('is made of the metrics', async () => {
    const result = await evaluate(network, generated, real);
    const { mean, std } = inceptionScore(generated.logits, { classes });
    const { precision, recall } = await precisionRecall(generated.features, real.features, { dimension });
    expect(result).toEqual({
      fid: frechetDistance(statisticsOf(generated, dimension), statisticsOf(real, dimension)).distance,
      inceptionScore: mean,
      inceptionScoreStd: std,
      precision,
      recall,
      counts: { generated: 80, real: 90 },
      network: 'test network',
      warnings: [],
    });
    expect(JSON.parse(JSON.stringify(result))).toEqual(result);
  });

  it('takes its options to the metrics', async () => {
    const result = await evaluate(network, generated, real, { splits: 2, neighbours: 1, precisionRecallImages: 20 });
    expect(result.inceptionScore).toBe(inceptionScore(generated.logits, { classes, splits: 2 }).mean);
    const { precision, recall } = await precisionRecall(generated.features, real.features.subarray(0, 20 * dimension), { dimension, neighbours: 1 });
    expect(result).toMatchObject({ precision, recall });
    for (const precisionRecallImages of [-1, 0, 2.5]) await expect(evaluate(network, generated, real, { precisionRecallImages })).rejects.toThrow(/precisionRecallImages is -?[\d.]+, expected an integer of at least 1/);
  });

  it('passes on what the network notes, and refuses images without logits', async () => {
    const note = "compare it with others of this network";
    expect((await evaluate({ ...network, note }, generated, real)).warnings).toEqual([note]);
    await expect(evaluate(network, { ...generated, logits: generated.logits.subarray(0, 40) }, real)).rejects.toThrow(/logits of the generated images/);
  });

  it('finds a set perfect against itself', async () => {
    const { fid, precision, recall } = await evaluate(network, real, real);
    expect(Math.abs(fid)).toBeLessThan(1e-12);
    expect([precision, recall]).toEqual([1, 1]);
  });

  it('warns of few samples and of a network of our own', async () => {
    const { warnings } = await evaluate({ ...network, comparable: false }, extracted(5, 3), real);
    expect(warnings).toEqual(['5 samples for 6 dimensions: the covariance is singular and the distance biased; use more than 6, better ten times as many', 'features are those of test network: compare these numbers with each other, not with published ones']);
  });

  it('has no score without logits', async () => {
    const result = await evaluate({ ...network, classes: 0 }, generated, real);
    expect(result.inceptionScore).toBeNaN();
    expect(result.fid).toBeGreaterThan(0);
  });

  it('records the version, and refuses features of another network or version', async () => {
    const versioned = { ...network, version: '2' };
    expect(await evaluate(versioned, extracted(80, 1, versioned), extracted(80, 2, versioned))).toMatchObject({ network: 'test network', networkVersion: '2' });
    await expect(evaluate(versioned, generated, real)).rejects.toThrow('evaluate: network of the generated features is ["test network", undefined], expected ["test network","2"]; extract both sets with one network');
    await expect(evaluate(network, generated, extracted(80, 2, { ...network, name: 'other' }))).rejects.toThrow('evaluate: network of the real features');
  });

  it('names the set and the place of a broken feature, and a set that is too small', async () => {
    const broken = extracted(80, 4);
    broken.features[2 * dimension + 1] = Number.NaN;
    await expect(evaluate(network, broken, real)).rejects.toThrow('evaluate: generated features: row 2, column 1 is NaN');
    await expect(evaluate(network, generated, broken)).rejects.toThrow('evaluate: real features: row 2, column 1 is NaN');
    await expect(evaluate(network, extracted(1, 5), real)).rejects.toThrow('evaluate: generated features: rows is 1, expected at least 2');
  });
});
