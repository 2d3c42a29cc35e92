import { createRng } from '@tinyfusion/core';
import { AdamW, type Collective, Ema, anyRank, broadcastJson, broadcastParameters, broadcastTrainingState, failThread, reduceGradients, singleCollective, threadCollective, threadMemory } from '@tinyfusion/train';
import { useBackend } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';

/** What every rank makes of it; ranks share this thread and take turns where they wait. */
function onRanks<T>(size: number, job: (collective: Collective) => Promise<T>, bytes?: number): Promise<T[]> {
  const memory = threadMemory(size, bytes === undefined ? {} : { bytes });
  return Promise.all(Array.from({ length: size }, (_, rank) => job(threadCollective(memory, rank))));
}

/** That means and weighted sums of gradients are right, and nothing is left of them. */
async function expectReduced(size: number, bucketBytes: number): Promise<void> {
  const before = tf.memory().numTensors;
  const shapes = [[3], [2, 5], [], [4, 4], [1]];
  const values = (rank: number): tf.Tensor[] => shapes.map((shape, i) => tf.fill(shape, (rank + 1) * (i + 1)));
  const weights = Array.from({ length: size }, (_, rank) => (rank + 1) / 8);
  const results = await onRanks(size, async (collective) => {
    const own = values(collective.rank);
    const [mean, weighted] = [await reduceGradients(collective, own, { bucketBytes }), await reduceGradients(collective, own, { bucketBytes, weight: weights[collective.rank]! })];
    for (const [i, gradient] of own.entries()) for (const x of await gradient.data()) expect(x).toBe((collective.rank + 1) * (i + 1)); // they are only borrowed
    tf.dispose(own);
    return [mean, weighted];
  });
  for (const [mean, weighted] of results) {
    for (const [i, shape] of shapes.entries()) {
      expect(mean![i]!.shape).toEqual(shape);
      for (const x of await mean![i]!.data()) expect(x).toBeCloseTo((i + 1) * ((size + 1) / 2), 5);
      for (const x of await weighted![i]!.data()) expect(x).toBeCloseTo((i + 1) * weights.reduce((sum, w, rank) => sum + w * (rank + 1), 0), 5);
    }
  }
  tf.dispose(results.flat());
  expect(tf.memory().numTensors).toBe(before);
}

describe.each([1, 2, 3, 5])('%i ranks over shared memory', (size) => {
  it.each([
    ['sum', (all: number[]) => all.reduce((a, b) => a + b)],
    ['mean', (all: number[]) => all.reduce((a, b) => a + b) / all.length],
    ['max', (all: number[]) => Math.max(...all)],
  ] as const)('all-reduce the %s, of arrays longer than the memory and shorter than the ranks', async (how, expected) => {
    for (const make of [(length: number, value: (i: number) => number) => Float32Array.from({ length }, (_, i) => value(i)), (length: number, value: (i: number) => number) => Float64Array.from({ length }, (_, i) => value(i))]) {
      for (const length of [1, 2, 7, 64, 1001]) {
        const value = (rank: number, i: number): number => ((rank * 37 + i * 11) % 64) - 20;
        const results = await onRanks(size, async (collective) => {
          const values = make(length, (i) => value(collective.rank, i));
          await collective.allReduce(values, how);
          return values;
        }, 256);
        const wanted = make(length, (i) => expected(Array.from({ length: size }, (_, rank) => value(rank, i))));
        for (const result of results) expect(result).toEqual(wanted);
      }
    }
  });

  it('broadcast arrays and JSON from rank 0', async () => {
    const results = await onRanks(size, async (collective) => {
      const bytes = Uint8Array.from({ length: 100 }, (_, i) => (collective.rank === 0 ? i : 0));
      await collective.broadcast(bytes);
      return { bytes, json: await broadcastJson(collective, collective.rank === 0 ? { a: [1, 'ä', null, Number.NaN, -Infinity] } : undefined) };
    }, 64);
    for (const { bytes, json } of results) {
      expect(bytes).toEqual(Uint8Array.from({ length: 100 }, (_, i) => i));
      expect(json).toEqual({ a: [1, 'ä', null, Number.NaN, -Infinity] });
    }
  });

  it('wait for each other at a barrier, and answer calls that overlap in their order', async () => {
    const log: string[] = [];
    await onRanks(size, async (collective) => {
      await new Promise((resolve) => setTimeout(resolve, 10 * collective.rank));
      log.push('before');
      await collective.barrier();
      log.push('after');
      const [a, b] = [Float32Array.of(1), Float32Array.of(10)];
      await Promise.all([collective.allReduce(a, 'sum'), collective.allReduce(b, 'sum'), collective.barrier()]);
      expect([a[0], b[0]]).toEqual([size, 10 * size]);
      await collective.close();
    });
    expect(log).toEqual([...Array<string>(size).fill('before'), ...Array<string>(size).fill('after')]);
  });

  it('agree where one of them says so', async () => {
    expect(await onRanks(size, (collective) => anyRank(collective, collective.rank === size - 1))).toEqual(Array(size).fill(true));
    expect(await onRanks(size, (collective) => anyRank(collective, false))).toEqual(Array(size).fill(false));
  });

  it.each(['cpu', 'wasm'] as const)('reduce gradients in buckets by their weights, and leave nothing else, on %s', async (backend) => {
    await useBackend({ prefer: backend });
    for (const bucketBytes of [8, 40, 1 << 20]) await expectReduced(size, bucketBytes);
    await tf.setBackend('cpu');
  });

  it('get the parameters, moments and averages of rank 0, to the bit', async () => {
    const before = tf.memory().numTensors;
    const states = await onRanks(size, async (collective) => {
      const rng = createRng(collective.rank);
      const parameters: tf.Variable[] = tf.tidy(() => [tf.variable(tf.tensor2d(rng.normal(6), [2, 3])), tf.variable(tf.tensor1d(rng.normal(4)))]);
      const [optimizer, ema] = [new AdamW(parameters), new Ema(parameters, { decay: 0.9 })];
      for (let step = 0; step <= collective.rank; step++) {
        const gradients = parameters.map((p) => tf.tensor(rng.normal(p.size), p.shape));
        optimizer.step(gradients, { lr: 0.1 });
        ema.update();
        tf.dispose(gradients);
      }
      await broadcastTrainingState(collective, { model: parameters.map((p, i) => [`${i}`, p] as const), optimizer, ema });
      const { m, v } = optimizer.moments();
      const state = { steps: optimizer.steps, updates: ema.updates, values: await Promise.all([...parameters, ...m, ...v, ...ema.averages()].map((t) => t.data())) };
      tf.tidy(() => parameters[0]!.assign(tf.fill([2, 3], collective.rank + 7)));
      await broadcastParameters(collective, parameters);
      expect(await parameters[0]!.data()).toEqual(new Float32Array(6).fill(7));
      optimizer.dispose();
      ema.dispose();
      tf.dispose(parameters);
      return state;
    });
    expect(states[0]).toMatchObject({ steps: 1, updates: 1 });
    for (const state of states) expect(state).toEqual(states[0]);
    expect(tf.memory().numTensors).toBe(before);
  });
});

describe('a rank that fails', () => {
  it('is named to those that wait for it, and to those that come later', async () => {
    const memory = threadMemory(3);
    const [first, second] = [threadCollective(memory, 0), threadCollective(memory, 1)];
    const waiting = first.allReduce(Float32Array.of(1), 'sum');
    setTimeout(() => failThread(memory, 2), 20);
    await expect(waiting).rejects.toMatchObject({ code: 'RANK_FAILED', message: expect.stringContaining('rank 2 of 3') });
    await expect(second.barrier()).rejects.toMatchObject({ code: 'RANK_FAILED' });
  });

  it('or has returned, is named too, but not to those that it came to a call with', async () => {
    const memory = threadMemory(2);
    const [first, second] = [threadCollective(memory, 0), threadCollective(memory, 1)];
    const values = Float32Array.of(1);
    const waiting = first.allReduce(values, 'sum');
    await second.allReduce(Float32Array.of(2), 'sum');
    failThread(memory, 1, 'returned');
    await waiting;
    expect(values[0]).toBe(3);
    await expect(first.barrier()).rejects.toMatchObject({ code: 'RANK_FAILED', message: expect.stringMatching(/^rank 1 of 2 has returned, and the others wait for it/) as string });
  });

  it('or that there is not, is an error', () => {
    expect(() => threadCollective(threadMemory(2), 2)).toThrow(/from 0 to 1/);
    expect(() => threadMemory(0)).toThrow(/positive number/);
    expect(() => threadMemory(2, { bytes: 12 })).toThrow(/multiple of 8/);
  });
});

describe('a rank of one', () => {
  it('leaves everything as it is', async () => {
    const collective = singleCollective();
    const values = Float32Array.of(1, 2);
    for (const done of [collective.allReduce(values, 'mean'), collective.broadcast(values), collective.barrier(), collective.close()]) await done;
    expect(values).toEqual(Float32Array.of(1, 2));
    const gradient = tf.tensor1d([1, 2]);
    const [same] = await reduceGradients(collective, [gradient]);
    expect(await same!.data()).toEqual(Float32Array.of(1, 2));
    expect(same).not.toBe(gradient);
    tf.dispose([gradient, same!]);
  });
});
