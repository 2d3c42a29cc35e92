import { describe, expect, it } from 'vitest';
import { jsonLines, runProgram } from './run-program.js';

interface Outcome {
  results?: unknown[];
  reports?: number;
  error?: { code: string; message: string; cause?: string };
  seconds?: number;
}

async function replicas(workerData: object): Promise<Outcome> {
  return jsonLines<Outcome>(await runProgram('threads', [JSON.stringify(workerData)]))[0]!;
}

describe('replicas in worker threads', () => {
  it('reduce and broadcast; the first one’s reports are passed on', async () => {
    const { results, reports } = await replicas({});
    const sum = 0 + 1 + 2 + 3 * 19;
    expect(results).toEqual([0, 1, 2].map((rank) => ({ rank, size: 3, sum, last: sum, numbers: [0.1, 0.2] })));
    expect(reports).toBe(20);
  });

  it.each(['throws', 'rejects'])('one that %s ends the run with its rank', async (how) => {
    const { error, seconds } = await replicas({ fails: 1, how });
    expect(error).toEqual({ code: 'WORKER_FAILED', message: 'rank 1 of 3 failed: out of luck', cause: 'out of luck' });
    expect(seconds).toBeLessThan(10);
  });

  it('one that exits ends the run with its rank', async () => {
    const { error } = await replicas({ fails: 2, how: 'exits' });
    expect(error).toMatchObject({ code: 'WORKER_FAILED', message: expect.stringMatching(/rank 2 of 3 failed: .*code 3/) as string });
  });

  it.each([
    ['waits in a barrier', { calls: 'barrier' }],
    ['comes to a call later', { calls: 'allReduce', pause: 300 }],
    ['closes', { calls: 'close', pause: 300 }],
  ])('one that %s without another that has returned ends the run, and does not wait for ever', async (_name, data) => {
    const { error, seconds } = await replicas({ leaves: [0], ...data, abortAfter: 20_000 });
    expect(error).toMatchObject({ code: 'RANK_FAILED', message: expect.stringMatching(/^rank [12] of 3 failed: rank 0 of 3 has returned, and the others wait for it/) as string });
    expect(seconds).toBeLessThan(15);
  });

  it('may return one after another where they have no calls left', async () => {
    expect((await replicas({ leaves: [0, 2], pause: 300 })).results).toEqual(['left', 'stayed', 'left']);
  });

  it('are cancelled by a signal, those too that do not listen', async () => {
    expect(await replicas({ waits: true, abortAfter: 300 })).toMatchObject({ error: { code: 'CANCELLED' } });
    const { error, seconds } = await replicas({ hangs: true, abortAfter: 300 });
    expect(error!.code).toBe('CANCELLED');
    expect(seconds).toBeLessThan(10);
  });

  it('lose nothing of what they print', async () => {
    const { stdout } = await runProgram('threads', [JSON.stringify({ prints: 3000 })]);
    expect(stdout.match(/^line \d+$/gm)).toHaveLength(3 * 3000);
    expect(stdout).toContain('"results":[0,1,2]');
  });

  it.each([['is stopped', { waits: true, abortAfter: 300 }, 'CANCELLED'], ['one has failed', { fails: 1, how: 'throws' }, 'WORKER_FAILED']])('put their things in order before they are ended, where the run %s', async (_name, data, code) => {
    const ran = await runProgram('threads', [JSON.stringify({ ...data, tidies: 0, grace: 30_000 })]);
    expect(ran.stdout).toContain('in order');
    expect(jsonLines<Outcome>(ran)[0]!.error!.code).toBe(code);
  });
});

describe('items mapped over worker threads', () => {
  it('come out the same on any number of threads', async () => {
    const [one, four] = [jsonLines<Outcome>(await runProgram('mapping', ['1']))[0]!, jsonLines<Outcome>(await runProgram('mapping', ['4']))[0]!];
    expect(one.results).toHaveLength(10);
    expect(one.results).toMatchObject(Array.from({ length: 10 }, (_, i) => ({ item: 10 * i })));
    expect(new Set(one.results!.map((r) => String((r as { drawn: number[] }).drawn))).size).toBe(10);
    expect(four).toEqual(one);
    expect(one.reports).toBe(1);
  });

  it('one that cannot be done ends the others', async () => {
    expect(jsonLines<Outcome>(await runProgram('mapping', ['2', 'bad']))[0]!.error).toMatchObject({ code: 'WORKER_FAILED', message: expect.stringMatching(/worker [01] of 2 failed: cannot be drawn/) as string });
  });
});
