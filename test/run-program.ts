// Bundles a program with our sources and runs it, as READMEs and examples have it.
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build, type Plugin } from 'esbuild';

export const root = fileURLToPath(new URL('..', import.meta.url));
const here = fileURLToPath(new URL('.', import.meta.url));
const cache = `${here}node_modules/.cache/programs`;

/** Assets are found from where the source of their package lies, not from the bundle. */
const assets: Plugin = {
  name: 'assets',
  setup: ({ onLoad }) => onLoad({ filter: /fashion-mnist\/src\/assets\.ts$/ }, ({ path }) => ({ contents: readFileSync(path, 'utf8').replaceAll('import.meta.url', JSON.stringify(`file://${path}`)), loader: 'ts' })),
};

/** A new empty folder. */
export const emptyFolder = (): string => mkdtempSync(join(tmpdir(), 'tinyfusion-program-'));

/**
 * Runs a program in a process of its own.
 * @param name of the bundle
 * @param cwd default: an empty folder
 * @returns its output
 */
export async function runProgram(name: string, contents: string, args: readonly string[] = [], cwd: string = emptyFolder()): Promise<string> {
  mkdirSync(cache, { recursive: true });
  const outfile = `${cache}/${name.replaceAll('/', '-')}.mjs`;
  await build({
    stdin: { contents, resolveDir: here, loader: 'ts' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    conditions: ['@tinyfusion/source'],
    external: ['@tensorflow/*', 'webgpu', 'onnxruntime-node', '@huggingface/hub', 'koffi', 'sharp'],
    // CommonJS libraries in an ES module ask for require
    banner: { js: `import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);` },
    plugins: [assets],
    outfile,
    logLevel: 'silent',
  });
  const { stdout } = await promisify(execFile)(process.execPath, [outfile, ...args], { timeout: 100_000, cwd });
  return stdout.trim();
}
