// The page that shows a run while it goes on.
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { watchRun } from '@tinyfusion/recipes/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const path = join(mkdtempSync(join(tmpdir(), 'watch-')), 'run');
const line = (step: number, values: object): string => `${JSON.stringify({ step, task: 'learn masks', time: 1_700_000_000_000 + 500 * step, values })}\n`;
beforeAll(() => {
  mkdirSync(path);
  writeFileSync(join(path, 'run.json'), JSON.stringify({ version: 1, identity: { task: 'learn-masks', steps: 40, name: '<script>alert(1)</script>' }, command: 'tinyfusion learn-masks --run a&b' }));
  writeFileSync(join(path, 'events.jsonl'), Array.from({ length: 20 }, (_, i) => line(i + 1, { loss: 2 - i / 20 })).join(''));
  writeFileSync(join(path, 'layers.jsonl'), [10, 20].map((step) => line(step, { 'gate 0': 0.875, 'keep 0': 1, 'gate 1': 0.125, 'keep 1': 0, 'activation 0': 3, 'activation 1': 50 })).join(''));
  writeFileSync(join(path, 'samples-000020.png'), Buffer.from([0x89, 0x50]));
});
afterAll(() => rmSync(path, { recursive: true }));

interface Answer {
  status: number;
  headers: Record<string, unknown>;
  body: string;
}

const get = (url: string, { host, method = 'GET' }: { host?: string; method?: string } = {}): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const asked = request(url, { method, headers: host === undefined ? {} : { host } }, (response) => {
      let body = '';
      response.on('data', (text: Buffer) => (body += text.toString()));
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }));
    });
    asked.once('error', reject);
    asked.end();
  });

/** Serves the page while `look` runs. */
async function watched(look: (url: string) => Promise<void>, options: object = {}): Promise<void> {
  const stop = new AbortController();
  let url: (text: string) => void;
  const ready = new Promise<string>((resolve) => (url = resolve));
  const served = watchRun(path, { signal: stop.signal, onReady: (text) => url(text), ...options });
  try {
    await look(await Promise.race([ready, served.then(() => '')]));
  } finally {
    stop.abort();
    await served;
  }
}

describe('a run’s page', () => {
  it('shows what is there, and what comes', async () => {
    await watched(async (url) => {
      expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/$/);
      const { status, body, headers } = await get(url);
      expect(status).toBe(200);
      expect(headers['content-security-policy']).toContain("default-src 'none'");
      expect(body).toContain('step 20 of 40');
      expect(body).toContain('not running; its command goes on with it');
      expect(body).toContain('tinyfusion learn-masks --run a&amp;b');
      expect(body).not.toContain('<script>alert');
      expect(body).not.toMatch(/(src|href)="https?:/);
      for (const part of ['aria-label="Loss by step"', 'Kept layers over the steps', 'aria-label="layer 1"', '|activation| by step', 'src="/samples-000020.png"']) expect(body).toContain(part);
      expect(body).toContain('88 %');
      writeFileSync(join(path, 'lock'), JSON.stringify({ pid: process.pid, host: hostname() }));
      appendFileSync(join(path, 'events.jsonl'), `${line(21, { loss: 0.25 })}{"step":22,"ta`);
      const live = (await get(`${url}live`)).body;
      expect(live).toContain(`running, process ${process.pid} on`);
      expect(live).toContain('step 21 of 40');
      expect(live).toContain('2.00 steps/s, 10 s left');
      appendFileSync(join(path, 'events.jsonl'), `sk":"x","time":1,"values":{"loss":7.5}}\n`);
      expect((await get(`${url}live`)).body).toContain('7.500');
      // the run was killed and goes on from step 5
      writeFileSync(join(path, 'events.jsonl'), Array.from({ length: 6 }, (_, i) => line(i + 1, { loss: 9 })).join(''));
      expect((await get(`${url}live`)).body).toContain('step 6 of 40');
      // a night passed before step 7; two pages ask at once
      const later = (step: number): string => `${JSON.stringify({ step, task: 'learn masks', time: 1_700_000_000_000 + 40_000_000 + 500 * step, ...(step === 9 ? { done: true } : {}), values: { loss: 9 } })}\n`;
      appendFileSync(join(path, 'events.jsonl'), later(7) + later(8));
      for (const { body: page } of await Promise.all([get(`${url}live`), get(`${url}live`)])) expect(page).toContain('step 8 of 40 · 2.00 steps/s, 16 s left');
      rmSync(join(path, 'lock'));
      // the decision was sure before all steps were done
      appendFileSync(join(path, 'events.jsonl'), later(9));
      expect((await get(`${url}live`)).body).toContain('<b>finished</b> · step 9');
    });
  });

  it('gives its pictures and nothing else, to this machine alone', async () => {
    await watched(async (url) => {
      const picture = await get(`${url}samples-000020.png`);
      expect([picture.status, picture.headers['content-type']]).toEqual([200, 'image/png']);
      for (const name of ['run.json', 'samples-000099.png', '../run.json', '%2e%2e/run.json', 'samples-000020.png/../run.json']) expect((await get(url + name)).status, name).toBe(404);
      expect((await get(url, { host: 'evil.example' })).status).toBe(403);
      expect((await get(url, { method: 'POST' })).status).toBe(405);
    });
  });

  it('ends by itself when nobody looks', async () => {
    const before = performance.now();
    await watchRun(path, { idle: 200 });
    expect(performance.now() - before).toBeLessThan(5000);
  });

  it('is refused where there is no run, or the port is taken', async () => {
    await expect(watchRun(tmpdir())).rejects.toThrow(/holds no run: it has no run\.json.*Name the folder of --run/);
    await watched(async (url) => {
      await expect(watchRun(path, { port: Number(new URL(url).port) })).rejects.toThrow('another program has it');
    });
  });
});
