import '@tensorflow/tfjs';
import { createRng } from '@tinyfusion/core';
import { AutoencoderKL, saveModel } from '@tinyfusion/models';
import { readPruneRecord } from '@tinyfusion/pruning';
import { parseSafetensors } from '@tinyfusion/weights';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import type { Server } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, type BrowserContextOptions, type Page, chromium } from 'playwright';
import { build } from 'vite';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { watched } from './main-thread';
import { serve } from './serve';

// the built page in Chromium, the way a person goes: look, cut, learn, recover, measure, take home, come back

const screenshots = fileURLToPath(new URL('screenshots', import.meta.url));
const MINUTE = 60_000;

/** How much slower than asked: CI's machine may be busy, and nobody knows how fast it is. The numbers are printed. */
const slack = process.env['CI'] === undefined ? 1 : 8;
let [browser, server, url, folder]: [Browser | undefined, Server | undefined, string, string] = [undefined, undefined, '', ''];
let page: Page;
let file: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'studio-'));
  await mkdir(screenshots, { recursive: true });
  await build({ root: fileURLToPath(new URL('..', import.meta.url)), build: { outDir: join(folder, 'page') }, logLevel: 'error' });
  ({ url, server } = await serve(join(folder, 'page')));
  browser = await chromium.launch({ executablePath: process.env['CHROMIUM_PATH'] ?? '/usr/bin/chromium', args: ['--no-sandbox', '--enable-unsafe-webgpu', '--enable-features=Vulkan', '--use-webgpu-adapter=swiftshader'] });
}, 2 * MINUTE);

afterAll(async () => {
  await browser?.close();
  await new Promise((resolve) => (server === undefined ? resolve(undefined) : server.close(resolve)));
  await rm(folder, { recursive: true, force: true });
});

/** A page of a visitor of their own, with what went wrong in it. */
async function visit(options: BrowserContextOptions = {}): Promise<Page & { problems: string[] }> {
  const context = await browser!.newContext({ viewport: { width: 1360, height: 900 }, colorScheme: 'light', ...options });
  context.setDefaultTimeout(2 * MINUTE);
  const problems: string[] = [];
  const opened = await context.newPage();
  opened.on('pageerror', (error) => void problems.push(error.message));
  opened.on('console', (message) => void (message.type() === 'error' && problems.push(message.text())));
  return Object.assign(opened, { problems });
}

/** Both have drawn. */
const drawn = (on: Page): Promise<unknown> => on.waitForFunction(() => [...document.querySelectorAll('.speed')].filter((e) => e.textContent.includes('images/s')).length === 2);

/** No work, and no drawing. */
async function quiet(on: Page): Promise<void> {
  await on.waitForTimeout(500); // what follows a click begins a moment later
  await on.waitForFunction(() => document.querySelector('.job') === null && document.querySelector('.pictures')?.getAttribute('aria-busy') === 'false');
}

const summary = (on: Page): Promise<string> => on.locator('.blocks .summary').innerText();
const blocksOn = (on: Page): Promise<number[]> => on.locator('.block').evaluateAll((all) => all.flatMap((block, i) => (block.getAttribute('aria-pressed') === 'true' ? [i] : [])));
const tab = (on: Page, name: string): Promise<void> => on.getByRole('tab', { name }).click();
const settle = async (on: Page, panel: string, label: string, value: number | ''): Promise<void> => {
  const field = on.locator(`#panel-${panel}`).getByLabel(label, { exact: true });
  await field.fill(String(value));
  await field.blur();
};

/** Downloads the student, and reads what was downloaded. */
async function takeHome() {
  await tab(page, 'Take home');
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download' }).click()]);
  file = join(folder, download.suggestedFilename());
  await download.saveAs(file);
  const state = await parseSafetensors(new Uint8Array(await readFile(file)));
  return { state, record: readPruneRecord(state.metadata)! };
}

/** What axe finds that is serious. */
async function unfit(on: Page): Promise<string[]> {
  await on.addScriptTag({ path: createRequire(import.meta.url).resolve('axe-core/axe.min.js') });
  return on.evaluate(async () => {
    const { axe } = globalThis as unknown as { axe: { run(): Promise<{ violations: { id: string; impact: string; nodes: { html: string; failureSummary: string }[] }[] }> } };
    const { violations } = await axe.run();
    return violations.filter(({ impact }) => impact === 'serious' || impact === 'critical').map(({ id, nodes }) => `${id}: ${nodes[0]?.html} ${nodes[0]?.failureSummary}`);
  });
}

test('draws within thirty seconds of opening, with the main thread free', async () => {
  page = await visit();
  const from = performance.now();
  let first = 0;
  const longest = await watched(browser!, page, async () => {
    await page.goto(url);
    await page.locator('canvas.student').first().waitFor();
    await drawn(page);
    first = (performance.now() - from) / 1000;
    await page.waitForFunction(() => document.querySelector('.legend')?.textContent.includes('from'));
  });
  console.log(`both have drawn after ${first.toFixed(1)} s; longest of ${longest.tasks} tasks ${longest.worked.toFixed(0)} ms of work, ${longest.wall.toFixed(0)} ms by the clock`);
  expect(first).toBeLessThan(30 * slack);
  expect(longest.tasks).toBeGreaterThan(100);
  expect(longest.worked).toBeLessThan(50 * slack);
  await expect.poll(() => summary(page)).toMatch(/% · [\d.]+× as fast[^]*0\.\d+ · \+\d+ %[^]*recovered in 300 steps/);
  await expect.poll(() => page.locator('.facts').innerText()).toMatch(/WebAssembly[^]*software[^]*MB/);
  // pictures are not blank
  const bright = await page.locator('canvas.student').evaluateAll((all) => all.map((canvas) => (canvas as HTMLCanvasElement).getContext('2d')!.getImageData(0, 0, 28, 28).data.reduce((a, b) => a + b, 0)));
  expect(new Set(bright).size).toBe(10);
  await page.screenshot({ path: join(screenshots, 'desktop-light.png'), fullPage: true });
}, 3 * MINUTE);

test('is fit for all: keyboard, screen readers, dark, a phone', async () => {
  expect(await unfit(page)).toEqual([]);
  for (const name of ['Recover', 'Measure', 'Take home', 'Choose']) {
    await page.getByRole('tab', { selected: true }).press('ArrowRight');
    await expect.poll(() => page.getByRole('tab', { selected: true }).innerText()).toContain(name);
    if (name === 'Recover') await page.locator('.veil').waitFor();
    expect(await unfit(page)).toEqual([]);
  }
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.waitForTimeout(500);
  expect(await unfit(page)).toEqual([]);
  await page.screenshot({ path: join(screenshots, 'desktop-dark.png'), fullPage: true });
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize({ width: 360, height: 780 });
  await page.waitForTimeout(300);
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(360);
  expect(await unfit(page)).toEqual([]);
  await page.screenshot({ path: join(screenshots, 'phone.png'), fullPage: true });
  await page.setViewportSize({ width: 1360, height: 900 });
}, 3 * MINUTE);

test('what is typed is what is used, however slowly the page is drawn', async () => {
  const field = (label: string) => page.locator('#panel-choose').getByLabel(label, { exact: true });
  const before = await Promise.all(['Steps', 'Batch', 'Seed'].map((label) => field(label).inputValue()));
  /** Several fields of one form between two frames. */
  const all = (values: Readonly<Record<string, string>>): Promise<void> =>
    page.evaluate((wanted) => {
      for (const label of document.querySelectorAll('#panel-choose .field')) {
        const input = label.querySelector('input');
        const value = wanted[label.querySelector('span')!.textContent];
        if (input === null || value === undefined) continue;
        input.value = value;
        input.dispatchEvent(new Event('change', { bubbles: true }));
      }
    }, values);
  await all({ Steps: '8', Batch: '16' });
  await page.waitForTimeout(500);
  expect([await field('Steps').inputValue(), await field('Batch').inputValue()]).toEqual(['8', '16']);
  // half a number stays while the page is drawn around it
  await field('Steps').fill('17');
  await all({ Seed: '5' });
  await page.waitForTimeout(500);
  expect([await field('Steps').inputValue(), await field('Seed').inputValue()]).toEqual(['17', '5']);
  for (const [i, label] of ['Steps', 'Batch', 'Seed'].entries()) await settle(page, 'choose', label, Number(before[i]));
  // nothing is no number
  await settle(page, 'choose', 'Steps', '');
  expect(await field('Steps').inputValue()).toBe(before[0]);
}, 2 * MINUTE);

test('pictures are what is said of them, however they came to be drawn', async () => {
  const pixels = (who: string): Promise<string> => page.locator(`canvas.${who}`).evaluateAll((all) => all.map((canvas) => (canvas as HTMLCanvasElement).toDataURL()).join());
  const before = await pixels('teacher');
  const draw = page.locator('.settings');
  await draw.getByLabel('Steps').fill('4');
  await draw.getByLabel('Seed').fill('7');
  await draw.getByLabel('Seed').blur();
  // the student is drawn by itself, and the teacher with it: from the same noise
  await page.getByRole('button', { name: /^Block 5,/ }).click();
  await expect.poll(() => page.locator('.pictures').getAttribute('aria-busy')).toBe('true');
  await quiet(page);
  await drawn(page);
  expect(await pixels('teacher')).not.toBe(before);
  // nothing to draw is no error, and leaves what is said of what there is
  for (const chip of await page.locator('.chip').all()) await chip.click();
  await page.getByRole('button', { name: /^Block 5,/ }).click();
  await page.waitForTimeout(800);
  await quiet(page);
  expect(await page.getByRole('alert').count()).toBe(0);
  expect(await page.locator('.rate.student').innerText()).toMatch(/^Student\s+7 blocks/);
  for (const chip of await page.locator('.chip').all()) await chip.click();
  // the second of two quick clicks does not stop what the first began
  await draw.getByLabel('Seed').fill('1');
  await draw.getByLabel('Seed').blur();
  await page.getByRole('button', { name: 'Draw', exact: true }).dblclick({ delay: 60 });
  await quiet(page);
  expect(await page.locator('.speed').allInnerTexts()).toEqual([expect.stringContaining('images/s'), expect.stringContaining('images/s')]);
}, 2 * MINUTE);

test('a block that is left out costs something at once', async () => {
  const before = await blocksOn(page);
  const block = page.getByRole('button', { name: /^Block 4,/ });
  await block.focus();
  await block.press('Space');
  await expect.poll(() => blocksOn(page)).toEqual(before.filter((i) => i !== 4));
  await expect.poll(() => summary(page)).toMatch(/5 of 12[^]*cut like this\s*0\.\d+ · \+\d+ %[^]*cut, not recovered/i);
  await quiet(page);
  await page.getByRole('button', { name: /^Oracle/ }).click();
  await quiet(page);
  await expect.poll(() => blocksOn(page)).toHaveLength(5);
  await page.getByRole('button', { name: /^Block influence/ }).click();
  await quiet(page);
  await expect.poll(() => page.locator('.tried li').allInnerTexts()).toEqual([expect.stringContaining('learned'), expect.stringContaining('oracle'), expect.stringContaining('block influence')]);
}, 3 * MINUTE);

test('learns masks, is stopped, and goes on after a reload', async () => {
  await settle(page, 'choose', 'Steps', 12);
  await settle(page, 'choose', 'Batch', 8);
  const longest = await watched(browser!, page, async () => {
    await page.getByRole('button', { name: 'Learn', exact: true }).click();
    await page.waitForFunction(() => document.querySelectorAll('.map rect').length >= 3 * 12);
    await page.getByRole('button', { name: 'Stop', exact: true }).click();
    await quiet(page);
  });
  console.log(`while learning: longest of ${longest.tasks} tasks ${longest.worked.toFixed(0)} ms of work, ${longest.wall.toFixed(0)} ms by the clock`);
  expect(longest.worked).toBeLessThan(50 * slack);
  const goOn = page.getByRole('button', { name: /^Go on from step \d+ of 12/ });
  expect(Number(/step (\d+)/.exec(await goOn.innerText())![1])).toBeGreaterThanOrEqual(3);
  await page.waitForTimeout(600); // the page keeps its plots a moment later
  await page.reload();
  await drawn(page);
  await expect.poll(() => page.locator('.map rect').count()).toBeGreaterThanOrEqual(36);
  await goOn.click();
  await quiet(page);
  await expect.poll(() => goOn.count()).toBe(0);
  await expect.poll(() => page.locator('.gate').count()).toBe(6);
  await page.screenshot({ path: join(screenshots, 'learned.png'), fullPage: true });
  await expect.poll(() => blocksOn(page)).toHaveLength(6);
  await expect.poll(() => summary(page)).toMatch(/learned/);
  await expect.poll(() => page.locator('#panel-choose .curve').innerText()).toContain('at step 12');
  expect((await takeHome()).record).toMatchObject({ criterion: 'learned', seed: 0, groups: Array.from({ length: 6 }, () => [1, 2]) });
  await tab(page, 'Choose');
}, 5 * MINUTE);

test('recovers, and measures what came of it', async () => {
  await page.getByRole('button', { name: /^Block 11,/ }).click(); // a choice that no earlier student has
  await quiet(page);
  const kept = await blocksOn(page);
  await tab(page, 'Recover');
  await settle(page, 'recover', 'Steps', 4);
  await settle(page, 'recover', 'Batch', 8);
  await page.locator('.threshold').waitFor();
  await page.screenshot({ path: join(screenshots, 'activations.png'), fullPage: true });
  await page.locator('.threshold').fill('6');
  await expect.poll(() => page.locator('.reading').innerText()).toMatch(/^At 6 σ the mask leaves out 0\.\d+ %/);
  await page.getByRole('button', { name: 'Recover', exact: true }).click();
  await quiet(page);
  await expect.poll(() => blocksOn(page)).toEqual(kept);
  await expect.poll(() => summary(page)).toContain('recovered in 4 steps');
  await page.screenshot({ path: join(screenshots, 'recovered.png'), fullPage: true });
  await tab(page, 'Measure');
  await settle(page, 'measure', 'Samples', 20);
  await page.getByRole('button', { name: 'Measure the student' }).click();
  await quiet(page);
  const row = await page.locator('tbody tr').first().innerText();
  expect(row).toMatch(/recovered 4 steps\s+20 samples in 10 steps, guidance 1\.5\s+\d+\s+[\d.]+\s+[\d.]+\s+[01]\.\d\d\s+[01]\.\d\d/);
  await page.screenshot({ path: join(screenshots, 'measured.png'), fullPage: true });
}, 5 * MINUTE);

test('hands over a file that says what it is, and takes it back', async () => {
  const kept = await blocksOn(page);
  const { state, record } = await takeHome();
  expect(record).toMatchObject({ kept, depth: 12, criterion: 'hand', teacher: { name: 'fashion-mnist teacher' } });
  expect(new Set([...state.tensors.keys()].flatMap((name) => /^blocks\.(\d+)\./.exec(name)?.[1] ?? []))).toEqual(new Set(kept.map((_, i) => String(i))));
  await page.screenshot({ path: join(screenshots, 'taken.png'), fullPage: true });
  expect((page as Page & { problems: string[] }).problems).toEqual([]);
  await page.context().close();

  // another visitor, who has never been here
  const other = await visit();
  await other.goto(url);
  await drawn(other);
  expect(await blocksOn(other)).not.toEqual(kept);
  const bytes = (await readFile(file)).toString('base64');
  const dropped = await other.evaluateHandle(async (text) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([await (await fetch(`data:application/octet-stream;base64,${text}`)).arrayBuffer()], 'mine.safetensors'));
    return transfer;
  }, bytes);
  await other.dispatchEvent('main', 'dragover', { dataTransfer: dropped });
  await other.dispatchEvent('main', 'drop', { dataTransfer: dropped });
  await expect.poll(() => blocksOn(other)).toEqual(kept);
  await quiet(other);
  await expect.poll(() => summary(other)).toContain('recovered in 4 steps');
  // and finds it again
  await other.reload();
  await drawn(other);
  await expect.poll(() => blocksOn(other)).toEqual(kept);
  await expect.poll(() => summary(other)).toContain('recovered in 4 steps');

  // what is none is refused in words
  await other.locator('input[type=file]').setInputFiles({ name: 'holiday.pt', mimeType: 'application/octet-stream', buffer: Buffer.from('no checkpoint at all') });
  await other.getByRole('alert').waitFor();
  await expect.poll(() => other.getByRole('alert').innerText()).toMatch(/holiday\.pt/);
  await expect.poll(() => other.locator('#model-title').innerText()).toBe('fashion-mnist teacher');
  // a damaged one is left where it is
  await other.evaluate(
    () =>
      new Promise((resolve) => {
        indexedDB.open('tinyfusion-studio', 1).addEventListener('success', (event) => {
          const store = (event.target as IDBOpenDBRequest).result.transaction('kept', 'readwrite').objectStore('kept');
          store.getAllKeys().addEventListener('success', (got) => {
            const name = (got.target as IDBRequest<string[]>).result.find((key) => key.startsWith('student of'))!;
            store.put({ file: new Uint8Array(9) }, name).addEventListener('success', resolve);
          });
        });
      }),
  );
  await other.reload();
  await drawn(other);
  expect(other.problems).toEqual([]);
  await other.context().close();
}, 5 * MINUTE);

/** Gives a worker's script lines of its own. */
async function inWorker(on: Page, lines: string): Promise<void> {
  await on.route('**/worker-*.js', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: `${lines}\n${await response.text()}` });
  });
}

test('works where nothing can be stored, and after files could not be fetched', async () => {
  const own = await visit();
  await inWorker(own, "indexedDB.open = () => { throw new Error('no storage'); };");
  await own.goto(url);
  // a click while both are drawn first leaves neither half drawn
  await own.waitForFunction(() => document.querySelector('.block:not(.ghost)') !== null && document.querySelector('.job') === null);
  await own.locator('.settings').getByLabel('Steps').fill('4');
  await own.getByRole('button', { name: /^Block 4/ }).click();
  await drawn(own);
  await tab(own, 'Recover');
  await settle(own, 'recover', 'Steps', 14);
  await settle(own, 'recover', 'Batch', 2);
  await own.getByRole('button', { name: 'Recover', exact: true }).click();
  await own.waitForFunction(() => Number(/step (\d+)/.exec(document.querySelector('.job p')?.textContent ?? '')?.[1]) >= 3);
  await own.locator('.job').getByRole('button', { name: 'Stop' }).click();
  await quiet(own);
  await expect.poll(() => summary(own)).toMatch(/recovered in \d+ steps/);
  await own.getByRole('button', { name: /^Go on from step \d+ of 14/ }).click();
  await quiet(own);
  await expect.poll(() => summary(own)).toContain('recovered in 14 steps');
  expect(await own.locator('#panel-recover .curve svg').getAttribute('aria-label')).toContain('in 14 steps');
  await tab(own, 'Measure');
  await settle(own, 'measure', 'Samples', 20);
  await own.route('**/features*', (route) => route.abort(), { times: 1 });
  const measure = own.getByRole('button', { name: 'Measure the student' });
  await measure.click();
  await expect.poll(() => own.getByRole('alert').innerText()).toContain('features.safetensors');
  await measure.click();
  await own.locator('tbody tr').waitFor();
  expect(await own.locator('tbody tr').innerText()).toMatch(/recovered 14 steps\s+20 samples in 10 steps, guidance 1\.5/);
  // another model, and back: all is as it was
  for (const family of ['SiT', 'DiT']) {
    await own.getByRole('button', { name: family, exact: true }).click();
    await quiet(own);
  }
  expect(await own.locator('tbody tr').count()).toBe(1);
  await expect.poll(() => summary(own)).toContain('recovered in 14 steps');
  await own.context().close();
}, 4 * MINUTE);

test('says so each time where the worker has ended', async () => {
  const own = await visit();
  await own.route('**/worker-*.js', (route) => route.abort());
  await own.goto(url);
  await own.getByRole('alert').waitFor();
  await own.getByLabel('Close this message').click();
  await own.getByRole('button', { name: 'SiT', exact: true }).click();
  await expect.poll(() => own.getByRole('alert').innerText()).toContain('reload the page');
  expect(await own.locator('.job').count()).toBe(0);
  await own.context().close();
}, MINUTE);

/** An autoencoder of the embedded latents' shape whose pictures are of 64 by 64. */
async function autoencoder(): Promise<Buffer> {
  const model = new AutoencoderKL({ inChannels: 3, channels: 8, channelMultipliers: [1, 1, 1, 1], numResBlocks: 1, latentChannels: 4, groups: 8, scalingFactor: 1 }, { init: createRng(0) });
  return Buffer.from(await saveModel(model));
}

/** Two classes in four steps: what a slow machine draws soon. */
async function drawLittle(on: Page): Promise<void> {
  for (const label of await on.locator('.chip').all()) if (!['Trouser', 'Bag'].includes(await label.innerText())) await label.click();
  await on.locator('.settings').getByLabel('Steps').fill('4');
  await on.getByRole('button', { name: 'Draw', exact: true }).click();
  await quiet(on);
}

test.for(['SiT', 'MAR'])('the embedded %s is cut and drawn alike', { timeout: 5 * MINUTE }, async (family) => {
  const own = await visit();
  await own.goto(url);
  await drawn(own);
  await own.locator('.settings').getByLabel('Steps').fill('4');
  const width = (): Promise<number> => own.locator('canvas.teacher').first().evaluate((canvas) => (canvas as HTMLCanvasElement).width);
  const groups = own.locator('#panel-choose select');
  await groups.selectOption({ label: '2 of every 4' });
  await own.locator('input[type=file]').setInputFiles({ name: 'own.safetensors', mimeType: 'application/octet-stream', buffer: await autoencoder() });
  await quiet(own);
  expect(await width()).toBe(64);
  await own.getByRole('button', { name: family, exact: true }).click();
  await quiet(own);
  await drawn(own);
  // what was the first one's is not taken along: its autoencoder, and groups that stacks do not divide into
  expect(await width()).toBe(28);
  expect(await groups.evaluate((select) => (select as HTMLSelectElement).selectedOptions[0]!.textContent)).toBe(family === 'MAR' ? '1 of every 2' : '2 of every 4');
  await expect.poll(() => own.locator('.model').innerText()).toContain(`${family}, 12 blocks`);
  await own.getByRole('button', { name: /^Oracle/ }).click();
  await quiet(own);
  await expect.poll(() => blocksOn(own)).toHaveLength(6);
  await own.screenshot({ path: join(screenshots, `${family}.png`), fullPage: true });
  expect(own.problems).toEqual([]);
  await own.context().close();
});

test('computes on WebGPU where it is asked to', async () => {
  const own = await visit();
  own.setDefaultTimeout(5 * MINUTE); // every program is compiled, in software
  await own.goto(url);
  await drawn(own);
  await drawLittle(own);
  await own.waitForTimeout(600); // settings are kept a moment later
  await own.goto(`${url}?backend=webgpu`);
  await own.waitForFunction(() => [...document.querySelectorAll('.speed')].some((e) => /\d+ of \d+ programs for the GPU/.test(e.textContent)));
  await drawn(own);
  await expect.poll(() => own.locator('.facts').innerText()).toContain('WebGPU');
  expect(own.problems).toEqual([]);
  await own.screenshot({ path: join(screenshots, 'webgpu.png'), fullPage: true });
  await own.context().close();
}, 10 * MINUTE);
