// The first program of every README and guide runs as printed, on the sources.
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

describe('programs in READMEs', () => {
  mkdirSync(cache, { recursive: true });
  const readmes = ['README.md', 'docs/guide/models.md', 'docs/guide/processes.md', ...readdirSync(`${root}packages`).map((name) => `packages/${name}/README.md`)];
  it.each(readmes)(
    '%s',
    async (readme) => {
      const outfile = `${cache}/${readme.replaceAll('/', '-')}.mjs`;
      await build({
        stdin: { contents: firstProgram(readme), resolveDir: here, loader: 'ts' },
        bundle: true,
        platform: 'node',
        format: 'esm',
        target: 'node20',
        conditions: ['@tinyfusion/source'],
        external: ['@tensorflow/*', 'webgpu'],
        // CommonJS libraries in an ES module ask for require; assets are found from where the source of their package lies
        banner: { js: `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);` },
        define: { 'import.meta.url': JSON.stringify(`file://${root}packages/fashion-mnist/src/assets.ts`) },
        outfile,
        logLevel: 'silent',
      });
      const { stdout } = await promisify(execFile)(process.execPath, [outfile], { timeout: 100_000 });
      expect(stdout.trim()).not.toBe('');
    },
    120_000,
  );
});
