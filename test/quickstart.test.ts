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
  const out = mkdtempSync(join(tmpdir(), 'quickstart-'));
  const tasks = async (stopAt?: string): Promise<string[]> => {
    const seen = new Set<string>();
    const stop = new AbortController();
    const run = quickstart({
      out,
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
  const report = JSON.parse(readFileSync(join(out, 'report.json'), 'utf8')) as { rows: { name: string }[] };
  expect(report.rows.map(({ name }) => name)).toEqual(['Teacher', 'TinyFusion', 'ShortGPT', 'Oracle']);
}, 240_000);
