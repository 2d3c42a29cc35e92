// What ends a run before its time, and what is kept of it.
import { BackendError } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { type OptimiseOptions, optimise } from '@tinyfusion/recipes';
import { RunFolder } from '@tinyfusion/recipes/node';
import { AdamW, constant } from '@tinyfusion/train';
import { parseSafetensors, writeSafetensors } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest';

beforeAll(async () => {
  await useBackend({ prefer: 'cpu' });
});
afterEach(() => vi.restoreAllMocks());

/** Ten steps of a toy of four samples, which save what they are told to. */
async function run(options: Partial<OptimiseOptions> & { loss?: (step: number, size: number) => tf.Scalar } = {}): Promise<{ saves: number[]; error?: Error & { code?: string }; values: Record<string, number>[] }> {
  const parameter = tf.variable(tf.scalar(1));
  const optimizer = new AdamW([parameter]);
  const [saves, values]: [number[], Record<string, number>[]] = [[], []];
  try {
    await optimise((step, _report, part) => tf.add(tf.square(parameter), options.loss?.(step, part?.size ?? 4) ?? 0) as tf.Scalar, {
      task: 'toy',
      steps: 10,
      groups: [{ parameters: [parameter], optimizer, lr: constant(0.1) }],
      keep: { every: 4, save: async (_, step) => void saves.push(step) },
      streams: { save: () => ({}), restore: () => {} },
      micro: { batchSize: 4 },
      onProgress: ({ values: v }) => values.push({ ...v }),
      ...options,
    });
    return { saves, values };
  } catch (error) {
    return { saves, values, error: error as Error };
  } finally {
    optimizer.dispose();
    parameter.dispose();
  }
}

describe('a run', () => {
  it('skips and counts steps that are not finite', async () => {
    const { values, saves, error } = await run({ loss: (step) => tf.scalar(step % 3 === 1 ? Number.NaN : 0) });
    expect(error).toBe(undefined);
    expect(saves).toEqual([4, 8, 10]);
    expect(values.map((v) => v['skipped'])).toEqual([undefined, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
  });

  it('of which no batch fits, even in parts of one sample, is saved and says from where it goes on', async () => {
    const sizes: number[] = [];
    const { saves, error } = await run({
      loss: (step, size) => {
        if (step === 6) {
          sizes.push(size);
          throw new BackendError('the WebGPU device is out of memory; use a smaller batch');
        }
        return tf.scalar(0);
      },
    });
    expect(sizes).toEqual([4, 2, 1]);
    expect(saves).toEqual([4, 6]);
    expect(error).toMatchObject({ code: 'BACKEND', message: 'toy ended in step 7: the WebGPU device is out of memory; use a smaller batch Of the run all steps before it are saved; the same command goes on from there' });
  });

  it('does not save weights that were updated without room for them', async () => {
    const real = AdamW.prototype.step;
    let updated = false;
    vi.spyOn(AdamW.prototype, 'step').mockImplementation(function (this: AdamW, ...args) {
      updated = true;
      return real.apply(this, args);
    });
    const data = tf.Tensor.prototype.data;
    vi.spyOn(tf.Tensor.prototype, 'data').mockImplementation(function (this: tf.Tensor) {
      if (updated) throw new BackendError('the WebGPU device is out of memory.');
      return data.call(this);
    } as never);
    const { saves, error } = await run();
    expect(saves).toEqual([]);
    expect(error!.message).toBe('toy ended in step 1: the WebGPU device is out of memory. Of the run nothing was saved yet; the same command goes on from there');
  });

  it('with another error throws that', async () => {
    const { saves, error } = await run({ loss: (step) => (step === 5 ? (() => { throw new TypeError('a bug'); })() : tf.scalar(0)) });
    expect([error!.message, saves]).toEqual(['a bug', [4, 5]]);
  });
});

// a disk of its own that is as small as asked for: root alone may mount one
const small = mkdtempSync(join(tmpdir(), 'small-disk-'));
const mounted = process.getuid?.() === 0 && process.platform === 'linux' && spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=200k', 'tmpfs', small]).status === 0;

describe.skipIf(!mounted)('a full disk (skipped where none can be mounted)', () => {
  afterEach(() => void spawnSync('umount', [small]));

  it('ends the run with a message; the save before it is whole', async () => {
    const path = join(small, 'run');
    mkdirSync(path, { recursive: true });
    const open = () => RunFolder.open(path, { task: 'toy' }, { command: 'a test', every: 1 });
    const save = async (run: RunFolder, step: number, size: number): Promise<void> => run.checkpointing(async () => new Uint8Array(10), {}).checkpoint!.save(0, step, await parseSafetensors(writeSafetensors([['x', { dtype: 'U8', shape: [size], bytes: new Uint8Array(size) }]])));
    {
      const run = await open();
      await save(run, 1, 60_000);
      await expect(save(run, 2, 250_000)).rejects.toMatchObject({ code: 'CHECKPOINT', message: expect.stringMatching(/step-000002\.new\.safetensors cannot be written: the disk is full/) as string });
      await run.close();
    }
    expect(readdirSync(path).filter((name) => name.startsWith('step-') || name.endsWith('.part'))).toEqual([expect.stringMatching(/^step-000001-[0-9a-f]{8}\.safetensors$/)]);
  });
});
