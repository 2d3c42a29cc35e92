// What the command line refuses before it begins: options that would be ignored, places that cannot be written, data that do not
// fit. The program runs in this process, on the sources.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { program } from '@tinyfusion/cli';
import { createRng } from '@tinyfusion/core';
import { DiT } from '@tinyfusion/models';
import { toSafetensors } from '@tinyfusion/nn';
import { useBackend } from '@tinyfusion/kernels';
import { encode } from 'fast-png';
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest';

const folder = mkdtempSync(join(tmpdir(), 'tinyfusion-guards-'));
const file = (name: string): string => join(folder, name);
const small = file('small.safetensors');
const config = { inputSize: 8, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 4, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 10, learnSigma: true };

const brokenRun = file('broken');

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
  vi.stubEnv('TINYFUSION_OFFLINE', '1');
  vi.stubEnv('TINYFUSION_CACHE', file('cache'));
  const dit = new DiT(config, { init: createRng(1) });
  writeFileSync(small, await toSafetensors(dit, { type: 'DiT', config }));
  dit.dispose();
  mkdirSync(brokenRun);
  writeFileSync(join(brokenRun, 'run.json'), '{');
});

afterEach(() => {
  process.exitCode = undefined;
});

/** Runs a command in this process. @returns what it says on both outputs, and how it ends */
async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const [out, err]: string[][] = [[], []];
  const spies = [vi.spyOn(console, 'log').mockImplementation((text) => void out!.push(String(text))), vi.spyOn(console, 'error').mockImplementation((text) => void err!.push(String(text)))];
  const main = program();
  const quiet = (command: ReturnType<typeof program>): void => {
    command.exitOverride().configureOutput({ writeErr: (text) => void err!.push(text.trimEnd()), writeOut: (text) => void out!.push(text.trimEnd()) });
    command.commands.forEach(quiet);
  };
  quiet(main);
  process.exitCode = undefined;
  try {
    const computes = main.commands.find((command) => command.name() === args[0])!.options.some(({ long }) => long === '--backend');
    await main.parseAsync([...args, ...(computes ? ['--backend', 'wasm'] : [])], { from: 'user' });
  } catch (error) {
    process.exitCode = (error as { exitCode?: number }).exitCode ?? 1;
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
  const code = Number(process.exitCode ?? 0);
  return { code, out: out!.join('\n'), err: err!.filter((line) => !line.startsWith('backend:')).join('\n') };
}

/** Every file and folder. */
const everything = (): string[] => readdirSync(folder, { recursive: true, encoding: 'utf8' }).toSorted();

async function refused(args: readonly string[], message: RegExp): Promise<void> {
  const before = everything();
  const { code, err } = await run(...args);
  expect(err).toMatch(message);
  expect(code).toBe(1);
  expect(err.split('\n').filter((line) => !line.includes('lists the options')).length, err).toBe(1);
  expect(everything(), 'nothing is left').toEqual(before);
}

describe('an option that would be ignored is refused', () => {
  const reference = 'expected a reference to measure against as the first argument';
  it.each<[string[], string]>([
    [['evaluate', '--ckpt', 'tinydit-d14', '--samples', '4', '--steps', '2'], `--ckpt is "tinydit-d14", ${reference}`],
    [['evaluate', '--ckpt', 'nofile.pt', '--model', small], `--ckpt is "nofile.pt", ${reference}`],
    ...(['--metrics fid', '--inception x', '--dinov2 x', '--solver ddim', '--dtype F16', '--rng philox', '--vae x', '--weights ema', '--skip-broken'].map((option): [string[], string] => [['evaluate', ...option.split(' ')], `${option.split(' ')[0]!} is .*, ${reference}`])),
    [['evaluate', 'a.npz', 'b.npz', '--ckpt', 'x.pt'], '--ckpt is "x.pt", expected to be left out with samples as the second argument'],
    [['evaluate', 'a.npz', 'b.npz', '--no-compile'], '--no-compile is "given", expected to be left out with samples'],
    [['stats', folder, '--inception', 'x', '--dinov2', 'y'], '--inception is "x", expected to be left out with --dinov2'],
    [['learn-masks', '--save-every', '5'], '--save-every is 5, expected to be given with --run'],
    [['learn-branches', '--faster', '1.2', '--keep-every', '5'], '--keep-every is 5, expected to be given with --run'],
    [['distill', '--student', small, '--sample-every', '5'], '--sample-every is 5, expected to be given with --run'],
    [['distill', '--student', small, '--run', file('run'), '--vae', 'nofile'], '--vae is "nofile", expected to be given with --sample-every'],
    [['sample', '--vae', 'x'], '--vae is "x", expected to be given with --ckpt'],
    [['sample', '--heads', '4'], '--heads is 4, expected to be given with --ckpt'],
    [['sample', '--weights', 'ema'], '--weights is "ema", expected to be given with --ckpt'],
    [['sample', '--preview', 'taesd'], '--preview is "taesd", expected to be given with --ckpt'],
    [['convert', small, file('x.safetensors'), '--part', 'head'], '--part is "head", expected to be left out but for a file that ends in .onnx'],
    [['convert', small, file('x.pt'), '--heads', '4'], '--heads is 4, expected to be left out but for'],
    [['convert', small, file('x.pt'), '--model', 'DiT-S/2'], '--model is "DiT-S/2", expected to be left out but for'],
    [['convert', small, file('x.onnx'), '--names', 'diffusers'], '--names is "diffusers", expected to be left out for .onnx'],
    [['convert', small, file('x.pt'), '--image-size', '512'], '--image-size is 512, expected to be left out but for --names upstream'],
    [['convert', small, file('x.pt'), '--names', 'diffusers', '--image-size', '512'], '--image-size is 512, expected to be left out but for --names upstream'],
    [['pack', folder, '--seed', '3'], '--seed is 3, expected to be given with --vae'],
    [['train', '--data', folder, '--config', 'x.json'], '--config is "x.json", expected to be given with --family'],
  ])('%j', (args, message) => refused(args, new RegExp(message)));
});

describe('a value out of its range is refused', () => {
  it.each<[string[], RegExp]>([
    [['watch', folder, '--port', '99999'], /argument '99999' is invalid\. expected 65535 at most/],
    [['watch', folder, '--idle', '-1'], /argument '-1' is invalid\. expected a number above 0/],
    [['sample', '--workers', '1000000'], /argument '1000000' is invalid\. expected \d+ at most/],
    [['sample', '--step-cache', '-1'], /expected a number above 0/],
    [['sample', '--cfg', '-3'], /expected 0 or more/],
    [['pack', folder, '--size', '100000'], /expected 4096 at most/],
    [['sample', '--model', 'SiT', '--solver', 'sde'], /--solver is "sde", expected to be left out: this model is sampled in one way here/],
    [['sample', '--model', 'MAR', '--solver', 'dpm'], /--solver is "dpm", expected to be left out/],
    [['sample', '--model', small, '--solver', 'sde'], /--solver is "sde", expected dpm, ddim or ddpm for this model/],
    [['sample', '--ckpt', 'x.pt'], /--model is missing, expected the name/],
    [['learn-masks', '--model', 'MAR', '--groups', '1:12'], /groups is "1:12", expected groups that keep a layer of encoder_blocks \(layers 0 to 5\) whatever is learned, such as 1:6/],
    [['learn-masks', '--model', 'MAR', '--groups', '1:4,2:8'], /groups is "1:4,2:8", expected groups that keep a layer of decoder_blocks/],
  ])('%j', (args, message) => refused(args, message));
});

describe('what cannot be had or kept is found before anything is fetched or computed', () => {
  it.skipIf(process.platform !== 'linux').each<[string[], RegExp]>([
    [['learn-masks', '--model', small, '--out', folder], /tinyfusion-guards-\w+ cannot be written: it is a folder/],
    [['learn-branches', '--faster', '1.2', '--model', small, '--out', '/proc/x.json'], /\/proc\/x\.json cannot be written: nothing can be made in that place/],
    [['distill', '--student', small, '--out', '/proc/r.safetensors'], /\/proc\/r\.safetensors cannot be written/],
    [['prune', '--model', small, '--keep', '0,2', '--out', '/proc/x/y.safetensors'], /the folder \/proc\/x cannot be made: nothing can be made in that place/],
    [['prune', '--ckpt', small, '--keep', '0,2', '--out', '/proc/x/y.safetensors'], /the folder \/proc\/x cannot be made/],
    [['learn-masks', '--model', small, '--images', '100', '--batch', '4', '--run', '/proc/x', '--out', file('m.json')], /the folder \/proc\/x cannot be made/],
    [['distill', '--student', small, '--teacher', small, '--images', '100', '--batch', '4', '--run', small, '--out', file('r.safetensors')], /small\.safetensors cannot be made: a part of the path is a file/],
    [['train', '--data', folder, '--out', small], /small\.safetensors cannot be made: a part of the path is a file/],
    [['convert', small, '/proc/x.onnx'], /\/proc\/x\.onnx cannot be written/],
    [['quickstart', '--fast', '--out', small], /small\.safetensors cannot be made: a part of the path is a file/],
    [['evaluate', 'nofile', file('x.npz')], /there is no file nofile/],
    [['evaluate', small, file('x.npz')], /has neither images \(arr_0\) nor statistics/],
    [['evaluate', small], /samples is missing, expected an \.npz/],
    [['stats', 'nofolder', '--out', file('s.npz')], /nofolder cannot be read/],
    [['watch', brokenRun], /broken holds no run: its run\.json is no JSON/],
    [['watch', small], /small\.safetensors holds no run: it is a file/],
    [['inspect', 'tinydit-d14'], /TinyDiT-D14-MaskedKD-500K\.pt is not in the cache/],
    [['inspect', 'hf://a/b/c.safetensors'], /is not in the cache/],
    [['sample', '--model', 'hf://a/b/c.safetensors', '--out', file('x.png')], /is not in the cache/],
    [['distill', '--student', 'https://example.org/x.safetensors', '--out', file('r.safetensors')], /is not in the cache/],
  ])('%j', (args, message) => refused(args, message));
});

describe('a run that was refused', () => {
  it('leaves its folder to the next', async () => {
    const masks = (...args: string[]) => ['learn-masks', '--model', small, '--images', '16', '--steps', '1', '--out', file('masks.json'), '--run', file('lm'), ...args];
    await refused(masks('--batch', '64'), /--batch is 64, expected at most the 16 samples of the first 16 images/);
    expect((await run(...masks('--batch', '2'))).code).toBe(0);
    expect((await run(...masks('--batch', '4'))).err).toMatch(/run\.json is of another run: batch was 2 and is 4/);
  });

  it.each([['{"numHeads": 5}', /DiTConfig\.numHeads is 5, expected a divisor of hiddenSize 96/], ['{"depth": -1}', /DiTConfig\.depth is -1/], ['{"depth": "two"}', /DiTConfig\.depth is "two"/]])('for the configuration %s has encoded nothing', async (text, message) => {
    writeFileSync(file('config.json'), text);
    await refused(['train', '--family', 'DiT', '--config', file('config.json'), '--out', file('teacher')], message);
  });
});

it('a folder with images of another set is not drawn into', async () => {
  mkdirSync(file('drawn'));
  for (const i of [0, 1, 2, 11]) writeFileSync(file(`drawn/${String(i).padStart(6, '0')}.png`), '');
  await refused(['sample', '--model', small, '--count', '2', '--steps', '1', '--out', file('drawn')], /drawn has 2 images of another set beside the 2 to come, 000002\.png to 000011\.png.* name another folder/);
  expect((await run('sample', '--model', small, '--count', '12', '--steps', '1', '--out', file('drawn'))).out).toMatch(/wrote 12 images in/);
});

it('pack leaves no folder where its autoencoder does not take the images', async () => {
  mkdirSync(file('colour/cats'), { recursive: true });
  writeFileSync(file('colour/cats/0.png'), encode({ width: 16, height: 16, channels: 3, data: new Uint8Array(768) }));
  writeFileSync(file('colour/cats/1.png'), 'no image');
  await refused(['pack', file('colour'), '--size', '16', '--vae', 'embedded', '--out', file('made/pack')], /--vae is "embedded", expected an autoencoder of images of 16×16×3/);
  await refused(['pack', file('colour'), '--size', '16', '--out', small], /small\.safetensors cannot be made: a part of the path is a file/);
  expect((await run('pack', file('colour'), '--size', '16', '--out', file('pack'))).err).toMatch(/1\.png cannot be decoded.*leave broken files out with --skip-broken/);
});

it('inspect --json --tensors is JSON', async () => {
  const { out } = await run('inspect', small, '--json', '--tensors');
  const { tensors, list } = JSON.parse(out) as { tensors: number; list: object[] };
  expect(list.length).toBe(tensors);
  expect(list).toContainEqual({ name: 'blocks.0.mlp.fc1.weight', dtype: 'F32', shape: [32, 16] });
  expect(JSON.parse((await run('inspect', small, '--json')).out)).not.toHaveProperty('list');
});

describe('what the README and the help say', () => {
  const readme = readFileSync(new URL('../packages/cli/README.md', import.meta.url), 'utf8');
  const { commands } = program();

  it('names every job, and those without a backend', () => {
    const [, jobs] = /Jobs: (.*?)\. /.exec(readme)!;
    expect(jobs!.split(', ').map((name) => name.replaceAll('`', ''))).toEqual(commands.map((command) => command.name()));
    const [, without] = /but (.*?), which compute nothing/.exec(readme)!;
    expect(without!.replaceAll('`', '').split(/, | and /)).toEqual(commands.filter(({ options }) => !options.some(({ long }) => long === '--backend')).map((command) => command.name()));
  });

  it('train without --family needs --data', async () => {
    expect(commands.find((command) => command.name() === 'train')!.options.find(({ long }) => long === '--data')!.description).toMatch(/default with --family: the embedded images/);
    await refused(['train'], /--data is missing, expected a folder of IDX files/);
  });
});

it('nothing was fetched', () => expect(existsSync(file('cache')) ? readdirSync(file('cache')) : []).toEqual([]));
