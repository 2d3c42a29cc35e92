// A quickstart that is stopped goes on where it was.
import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { useBackend } from '@tinyfusion/kernels';
import { quickstart } from '@tinyfusion/recipes/node';
import { beforeAll, expect, it } from 'vitest';

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

const sizes = { images: 250, maskSteps: 2, recoverySteps: 2, batchSize: 8, samples: 10, references: 100, samplingSteps: 2 };

it('keeps what is finished and does the rest', async () => {
  const [out, whole] = [0, 1].map(() => mkdtempSync(join(tmpdir(), 'quickstart-'))) as [string, string];
  const tasks = async (stopAt?: string, to = out): Promise<string[]> => {
    const seen = new Set<string>();
    const stop = new AbortController();
    const run = quickstart({
      out: to,
      sizes,
      command: 'test',
      backend: 'wasm',
      signal: stop.signal,
      onProgress: ({ task }) => {
        seen.add(task);
        if (task === stopAt) stop.abort();
      },
    });
    if (stopAt === undefined) await run;
    else await expect(run).rejects.toMatchObject({ code: 'CANCELLED' });
    return [...seen];
  };
  expect(await tasks('recover ShortGPT')).toContain('learn masks');
  expect(existsSync(join(out, 'report.html'))).toBe(false);
  const second = await tasks();
  expect(second).not.toContain('learn masks');
  expect(second).not.toContain('recover TinyFusion');
  expect(second).toContain('recover ShortGPT');
  const third = await tasks();
  expect(third.filter((task) => task.startsWith('recover') || task.startsWith('measure'))).toEqual([]);
  const rowsOf = (folder: string): { name: string; imagesPerSecond: number }[] => (JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8')) as { rows: ReturnType<typeof rowsOf> }).rows;
  expect(rowsOf(out).map(({ name }) => name)).toEqual(['Teacher', 'TinyFusion', 'ShortGPT', 'Oracle']);

  // what was measured is what one that is not stopped measures
  await tasks(undefined, whole);
  expect(rowsOf(out)).toEqual(rowsOf(whole).map((row) => ({ ...row, imagesPerSecond: expect.any(Number) as number })));
}, 400_000);
