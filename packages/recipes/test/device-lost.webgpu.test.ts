// A device that is lost in the middle of a run: the run ends with what to do, and goes on with a new one.
import { useBackend } from '@tinyfusion/kernels';
import { optimise } from '@tinyfusion/recipes';
import { AdamW, constant } from '@tinyfusion/train';
import { parseSafetensors, safetensorsOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';

/** Six steps of a toy; `before` is called before each. */
async function run({ resume, before }: { resume?: Uint8Array; before?: (step: number) => void } = {}): Promise<{ value?: number; saves: [number, Uint8Array][]; error?: Error }> {
  const parameter = tf.variable(tf.tensor1d([1, 2, 3]));
  const optimizer = new AdamW([parameter]);
  const saves: [number, Uint8Array][] = [];
  try {
    await optimise(() => tf.sum(tf.square(parameter)) as tf.Scalar, {
      task: 'toy',
      steps: 6,
      groups: [{ parameters: [parameter], optimizer, lr: constant(0.1) }],
      keep: { every: 2, ...(resume === undefined ? {} : { resume: await parseSafetensors(resume) }), save: async (run, step) => void saves.push([step, await safetensorsOf(run)]) },
      beforeStep: async (step) => before?.(step),
    });
    const [value] = await parameter.data();
    return { value: value!, saves };
  } catch (error) {
    return { saves, error: error as Error };
  }
}

it('ends the run with where it goes on, and a new device goes on to the same end', async () => {
  await useBackend({ prefer: 'webgpu' });
  const whole = await run();
  const cut = await run({ before: (step) => step === 3 && (tf.backend() as unknown as { device: { destroy(): void } }).device.destroy() });
  expect(cut.error).toMatchObject({ code: 'BACKEND', message: expect.stringMatching(/toy ended in step \d: .*lost.*it was saved at step 2; the same command goes on from there/) as string });
  expect(cut.saves.map(([step]) => step)).toEqual([2]);
  await useBackend({ prefer: 'webgpu' });
  const rest = await run({ resume: cut.saves[0]![1] });
  expect(rest.value).toBe(whole.value);
  expect(rest.saves.map(([step]) => step)).toEqual([4, 6]);
});
