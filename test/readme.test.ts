// The first program of every README and guide, and every example, runs as it stands, on the sources.
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const here = fileURLToPath(new URL('.', import.meta.url));
const cache = `${here}node_modules/.cache/readme`;

function firstProgram(readme: string): string {
  const code = /```ts\n([\s\S]*?)```/.exec(readmeOf(readme))?.[1];
  if (code === undefined) throw new Error(`${readme} has no program in TypeScript`);
  return code;
}

const readmeOf = (path: string): string => readFileSync(`${root}${path}`, 'utf8');

/** Bundles a program with our sources and runs it; the output. */
async function run(name: string, contents: string, args: string[] = []): Promise<string> {
  mkdirSync(cache, { recursive: true });
  const outfile = `${cache}/${name.replaceAll('/', '-')}.mjs`;
  await build({
    stdin: { contents, resolveDir: here, loader: 'ts' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    conditions: ['@tinyfusion/source'],
    external: ['@tensorflow/*', 'webgpu', 'onnxruntime-node', '@huggingface/hub', 'sharp'],
    // CommonJS libraries in an ES module ask for require; assets are found from where the source of their package lies
    banner: { js: `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);` },
    define: { 'import.meta.url': JSON.stringify(`file://${root}packages/fashion-mnist/src/assets.ts`) },
    outfile,
    logLevel: 'silent',
  });
  const { stdout } = await promisify(execFile)(process.execPath, [outfile, ...args], { timeout: 100_000, cwd: cache });
  return stdout.trim();
}

describe('programs in READMEs', () => {
  const readmes = ['README.md', 'docs/guide/models.md', 'docs/guide/processes.md', 'docs/guide/checkpoints.md', 'docs/guide/evaluating.md', ...readdirSync(`${root}packages`).map((name) => `packages/${name}/README.md`)];
  it.each(readmes)(
    '%s',
    async (readme) => expect(await run(readme, firstProgram(readme))).not.toBe(''),
    120_000,
  );
});

describe('examples', () => {
  it.each([
    ['prune.ts', '2', /kept layers \d+( \d+){5} → shallow\.safetensors/],
    ['own-model.ts', '3', /kept \d \d \d → 3 blocks/],
    ['sample-with-preview.ts', '0', /10\/10: the model expects/],
  ])('%s', async (name, argument, expected) => expect(await run(`examples/${name}`, readmeOf(`examples/${name}`), [argument])).toMatch(expected), 120_000);
});
