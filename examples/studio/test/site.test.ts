import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import type { Server } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, type Page, chromium } from 'playwright';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { serve } from './serve';

// the site that `pnpm run docs` has built, with the Studio as a part of it, as a reader sees it

const built = fileURLToPath(new URL('../../../docs/.vitepress/dist', import.meta.url));
const screenshots = fileURLToPath(new URL('screenshots', import.meta.url));
const base = process.env['DOCS_BASE'] ?? '/';
let [browser, server, url]: [Browser | undefined, Server | undefined, string] = [undefined, undefined, ''];
let page: Page;
const problems: string[] = [];

beforeAll(async () => {
  if (!existsSync(join(built, 'index.html'))) throw new Error('the site is not built: run pnpm run docs');
  await mkdir(screenshots, { recursive: true });
  ({ url, server } = await serve(built, base));
  browser = await chromium.launch({ executablePath: process.env['CHROMIUM_PATH'] ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
  page = await browser.newPage({ viewport: { width: 1360, height: 900 } });
  page.setDefaultTimeout(60_000);
  page.on('pageerror', (error) => void problems.push(error.message));
  page.on('console', (message) => void (message.type() === 'error' && problems.push(message.text())));
}, 60_000);

afterAll(async () => {
  await browser?.close();
  await new Promise((resolve) => (server === undefined ? resolve(undefined) : server.close(resolve)));
});

const shoot = (name: string): Promise<unknown> => page.screenshot({ path: join(screenshots, `site-${name}.png`) });

test('leads from the first page to a model pruned in the page', async () => {
  await page.goto(url);
  expect(await page.locator('.VPHero').innerText()).toContain('learned shallow');
  await shoot('home');
  await page.getByRole('link', { name: 'Start', exact: true }).first().click();
  await page.getByRole('heading', { name: 'In this page' }).waitFor();
  await shoot('start');
  await page.getByRole('button', { name: 'Prune one here' }).click();
  const studio = page.frameLocator('iframe[title="TinyFusion Studio"]');
  await studio.getByRole('button', { name: /^Block 3/ }).waitFor();
  expect(await studio.getByRole('link', { name: 'How it works' }).getAttribute('href')).toBe('../guide/path.html');
  await studio.locator('canvas.student:not(.blank)').first().waitFor();
  await shoot('studio');
  expect(problems).toEqual([]);
}, 180_000);

test('shows code, numbers and the API, and finds words', async () => {
  for (const [path, words] of [
    ['guide/own-model.html', 'gates.decide(100)'],
    ['guide/applications.html', 'serverExternalPackages'],
    ['guide/parity.html', 'guided-diffusion'],
    ['results/', 'Choices of layers at equal recovery'],
    ['results/methods.html', 'ShortGPT'],
    ['api/@tinyfusion/sampler/classes/LayerGates.html', 'LayerGates'],
  ] as const) {
    await page.goto(`${url}${path}`);
    expect(await page.locator('.VPDoc').innerText(), path).toContain(words);
    await shoot(path.replaceAll(/[^a-z]+/gi, '-'));
  }
  await page.keyboard.press('Control+k');
  await page.locator('.VPLocalSearchBox input').fill('massive activations');
  await page.locator('.VPLocalSearchBox .result').first().waitFor();
  await shoot('search');
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.setViewportSize({ width: 390, height: 800 });
  await page.goto(`${url}guide/path.html`);
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390);
  await shoot('phone-dark');
  expect(problems).toEqual([]);
}, 120_000);
