// The command line as a user meets it: the built program in a process of its own.
import { execFile, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createRng } from '@tinyfusion/core';
import { inceptionShapes } from '@tinyfusion/eval';
import { useBackend } from '@tinyfusion/kernels';
import { AutoencoderKL, DiT, createModel } from '@tinyfusion/models';
import { type Module, readState, toSafetensors } from '@tinyfusion/nn';
import { readPruneRecord, withHoles } from '@tinyfusion/pruning';
import { parseSafetensors, toFloat32, writableTensor, writeNpz, writeSafetensors, writeTorch } from '@tinyfusion/weights';
import { loadSafetensors, openCheckpoint, writeCheckpoint, writeFileAtomic } from '@tinyfusion/weights/node';
import { encode } from 'fast-png';
import { beforeAll, describe, expect, it } from 'vitest';
import { formulaState } from './golden/formula-weights.js';

const bin = fileURLToPath(new URL('../packages/cli/bin/tinyfusion.mjs', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'tinyfusion-'));
const file = (name: string): string => join(folder, name);

function run(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    // Vulkan's loader may talk on stderr while a GPU is looked for; these tests look at our own words
    const backend = ['--help', 'inspect', 'convert', 'fetch'].includes(args[0]!) || args.includes('--backend') ? [] : ['--backend', 'wasm'];
    execFile(process.execPath, [bin, ...args, ...backend], { cwd: folder, timeout: 100_000, env: { ...process.env, TINYFUSION_OFFLINE: '1', TINYFUSION_CACHE: join(folder, 'cache') } }, (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code ?? 1), stdout, stderr }));
  });
}

/** The lines that a failed job leaves beside the one that names the backend. */
const complaint = (stderr: string): string[] => stderr.trim().split('\n').filter((line) => !line.startsWith('backend:'));

const config = { inputSize: 8, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 4, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 10, learnSigma: true };

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
  const dit = new DiT(config, { init: createRng(1) });
  const bytes = await toSafetensors(dit, { type: 'DiT', config });
  await writeFileAtomic(file('teacher.safetensors'), bytes);
  writeFileSync(file('cut-off.safetensors'), bytes.subarray(0, 5000));
  const deeper = await toSafetensors(dit, { type: 'DiT', config: { ...config, depth: 6 } });
  writeFileSync(file('missing-blocks.safetensors'), deeper);
  writeFileSync(file('null.json'), 'null');
});

/** A model's tensors under the names that a reference's checkpoint has. */
const tensorsOf = async (model: Module) => Array.from(await readState(model), ([name, { shape, values }]) => [name, writableTensor(values, shape)] as const);

describe('bad input ends in one line and exit code 1, and nothing is written', () => {
  it.each([
    ['a label out of range', ['sample', '--classes', '0,11'], /labels is 11, expected integers from 0 to 9/],
    ['a model that is not there', ['sample', '--model', 'nowhere.safetensors'], /nowhere\.safetensors cannot be read: there is no such file/],
    ['a file that is cut off', ['sample', '--model', 'cut-off.safetensors'], /cut-off\.safetensors.*cut off/],
    ['missing tensors', ['sample', '--model', 'missing-blocks.safetensors'], /does not fit DiT: missing \(20\): blocks\.4\.attn\.qkv\.weight/],
    ['groups that do not fit', ['learn-masks', '--model', 'teacher.safetensors', '--groups', '1:3', '--images', '200'], /groups is "1:3", expected N:M whose M divides the model's 4 layers/],
    ['a layer that is not there', ['prune', '--model', 'teacher.safetensors', '--keep', '1,9'], /kept layers is 9, expected indices from 0 to 3/],
    ['a list with an empty place', ['prune', '--model', 'teacher.safetensors', '--keep', '3,'], /--keep is "3,", expected layer numbers/],
    ['a number of layers that nothing counts', ['prune', '--model', 'teacher.safetensors', '--keep', '1', '--count', '2'], /--count is 2, expected to be left out without --method/],
    ['data that nothing looks at', ['prune', '--model', 'teacher.safetensors', '--method', 'oracle', '--data', 'x'], /--data is "x", expected to be left out where nothing is measured/],
    ['an option of a file without one', ['prune', '--model', 'teacher.safetensors', '--keep', '1', '--stack', 'blocks'], /--stack is "blocks", expected to be left out without --ckpt/],
    ['a model beside a file', ['prune', '--ckpt', 'teacher.safetensors', '--model', 'teacher.safetensors', '--keep', '1'], /--model is .*, expected to be left out with --ckpt/],
    ['a stack twice', ['prune', '--ckpt', 'teacher.safetensors', '--keep', 'blocks:0;blocks:1'], /the layers of each stack once; blocks is there twice/],
    ['a stack beside the named one', ['prune', '--ckpt', 'teacher.safetensors', '--stack', 'blocks', '--keep', 'blocks:0;others:1'], /layers of blocks alone, which --stack names; not of others/],
    ['a decision that is none', ['prune', '--model', 'teacher.safetensors', '--masks', 'null.json'], /null\.json is no decision of learn-masks or learn-branches/],
    ['a configuration that is none', ['prune', '--ckpt', 'teacher.safetensors', '--keep', '1', '--config', 'null.json', '--out', 'sub/x.safetensors'], /null\.json is no model's configuration: it holds null/],
    ['two ways to choose', ['prune', '--keep', '1', '--method', 'oracle'], /one of --masks, --keep and --method is \["--keep", "--method"\], expected exactly one/],
    ['a decision for another model', ['prune', '--masks', 'nothing.json'], /nothing\.json cannot be read as a decision/],
    ['a configuration that is none', ['train', '--family', 'DiT', '--config', 'null.json', '--fast'], /null\.json holds null, expected an object/],
    ['a model in its own place', ['prune', '--model', 'teacher.safetensors', '--keep', '1', '--out', './teacher.safetensors'], /--out is .*, expected another file than --model, which stays as it is/],
    ['a student in its own place', ['distill', '--student', 'teacher.safetensors', '--out', 'teacher.safetensors'], /--out is .*, expected another file than --student/],
    ['previews of what has none', ['sample', '--ckpt', 'x.pt', '--model', 'SiT-XL/2', '--preview', 'taesd'], /--preview is "taesd", expected to be left out: the steps of SiT-XL\/2/],
    ['a data folder that is not there', ['train', '--data', 'no-such-folder'], /data folder no-such-folder cannot be read/],
    ['weights that are not here, and no network', ['sample', '--model', 'DiT-D14/2', '--ckpt', 'tinydit-d14'], /TinyDiT-D14-MaskedKD-500K\.pt is not in the cache, and offline nothing is fetched; fetch https:.* and put it at/],
    ['weights without the name of their model', ['sample', '--ckpt', 'x.pt'], /--model is missing, expected the name of the checkpoint's model, one of DiT-S\/2/],
    ['a model without weights', ['sample', '--model', 'DiT-XL/2'], /--ckpt is missing, expected the file of DiT-XL\/2's weights/],
    ['an option out of its range', ['sample', '--steps', '0'], /expected a positive integer/],
    ['a learning rate that climbs', ['learn-branches', '--faster', '1.4', '--lr', '-1'], /'--lr <x>' argument '-1' is invalid\. expected a number above 0, e\.g\. 1e-3/],
    ['the same of gates', ['learn-masks', '--gate-lr', '0'], /'--gate-lr <x>' argument '0' is invalid\. expected a number above 0/],
    ['a folder in place of a file', ['inspect', '.'], /\. cannot be read: it is a folder/],
    ['a place under a file', ['sample', '--out', 'teacher.safetensors/x.png'], /the folder teacher\.safetensors cannot be made: a part of the path is a file/],
    ['numbers that could not be kept', ['evaluate', '--json', 'teacher.safetensors/x.json'], /the folder teacher\.safetensors cannot be made/],
    ['an empty class', ['sample', '--classes', ''], /labels is "", expected integers from 0 to 9/],
    ['a name of nothing', ['sample', '--model', 'DiT-D14/2', '--ckpt', 'tinydit-d41'], /no published checkpoint of that name; known are .*tinydit-d14/],
    ['images that are not there', ['encode', 'nowhere'], /the folder nowhere cannot be read: there is no such folder/],
    ['a backend that is none', ['sample', '--backend', 'abacus'], /Allowed choices are auto, webgpu, wasm, cpu/],
  ])('%s', async (_name, args, message) => {
    const before = readdirSync(folder).toSorted();
    const { code, stderr } = await run(...args);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(code).toBe(1);
    if (!stderr.includes('lists the options')) expect(complaint(stderr).length, stderr).toBe(1);
    expect(readdirSync(folder).toSorted()).toEqual(before);
  });

  it('shows the stack with --debug', async () => {
    const { stderr } = await run('sample', '--classes', '11', '--debug');
    expect(stderr).toMatch(/\n\s+at /);
  });
});

describe('cuts finer than layers', () => {
  it('learns branches, cuts, recovers, and samples from the file alone', async () => {
    const small = ['--images', '100', '--batch', '8', '--steps', '2'];
    expect((await run('learn-branches', '--faster', '1.3', ...small, '--out', 'branches.json')).stdout).toMatch(/keep layers .* times as fast by the times of its blocks, .* as measured in turns with the whole/);
    const { speed } = JSON.parse(readFileSync(file('branches.json'), 'utf8')) as { speed: { asked: number; promised: number; measured: { faster: number; quartiles: number[] } } };
    expect(speed).toMatchObject({ asked: 1.3, measured: { faster: expect.any(Number), quartiles: [expect.any(Number), expect.any(Number)] } });
    expect(speed.promised).toBeGreaterThanOrEqual(1.3 * 0.999);
    expect((await run('prune', '--masks', 'branches.json', '--out', 'fewer-branches.safetensors')).code).toBe(0);
    const record = readPruneRecord((await loadSafetensors(file('fewer-branches.safetensors'))).metadata)!;
    expect(record.branches!.attention!.length + record.branches!.mlp!.length + 2 * (12 - record.kept.length)).toBeGreaterThan(0);
    expect((await run('distill', '--student', 'fewer-branches.safetensors', ...small, '--out', 'recovered-branches.safetensors')).code).toBe(0);
    expect((await run('sample', '--model', 'recovered-branches.safetensors', '--classes', '1', '--steps', '2', '--out', 'branches.png')).code).toBe(0);
    const other = await run('distill', '--student', 'fewer-branches.safetensors', '--teacher', 'SiT', ...small);
    expect(complaint(other.stderr).join()).toMatch(/the model was cut from fashion-mnist teacher .* With --any-teacher this one is taken/);
    expect((await run('learn-branches', '--faster', '1000', ...small)).stderr).toMatch(/faster is 1000, expected at most/);
    expect((await run('learn-branches', '--faster', '1.3', '--model', 'MAR', ...small)).stderr).toMatch(/a DiT or SiT: the blocks of a MAR stay whole/);
    expect((await run('learn-branches', '--help')).stdout).not.toMatch(/MAR/);
    expect(complaint((await run('learn-branches', '--faster', '1.3', '--model', 'fewer-branches.safetensors', ...small)).stderr).join()).toMatch(/model is "block \d has its (attention|MLP) alone.*expected a model whose blocks all have attention and MLP; learn branches of the model that it was cut from/);
  }, 300_000);

  it('puts fitted linear layers in the place of removed runs', async () => {
    const { stdout } = await run('prune', '--keep', '0,1,2,3,4,7,8,9,10,11', '--replace', 'linear', '--out', 'linear.safetensors');
    const left = /layers 5 to 6: a linear layer leaves (\d+) % of what they do/.exec(stdout);
    expect(Number(left?.[1]), stdout).toBeLessThan(90);
    expect((await run('sample', '--model', 'linear.safetensors', '--classes', '1', '--steps', '2', '--out', 'linear.png')).code).toBe(0);
    expect((await run('inspect', 'linear.safetensors')).stdout).toMatch(/linear maps stand for 5, 6/);
  }, 120_000);

  it.each(['SiT', 'MAR'])('takes %s the same way, from its embedded teacher', async (family) => {
    const small = ['--images', '100', '--batch', '8', '--steps', '2'];
    expect((await run('learn-masks', '--model', family, ...small, '--out', `${family}.json`)).code).toBe(0);
    expect((await run('prune', '--model', family, '--masks', `${family}.json`, '--out', `${family}.safetensors`)).code).toBe(0);
    expect((await run('distill', '--student', `${family}.safetensors`, '--teacher', family, ...small, '--out', `${family}-recovered.safetensors`)).code).toBe(0);
    expect((await run('sample', '--model', `${family}-recovered.safetensors`, '--classes', '1', '--steps', '2', '--out', `${family}.png`)).code).toBe(0);
    expect((await run('sample', '--model', family, '--solver', 'ddim')).stderr).toMatch(/this model is sampled in one way here/);
  }, 180_000);
});

describe('jobs', () => {
  it('lists them', async () => {
    const { stdout, code } = await run('--help');
    expect(code).toBe(0);
    for (const job of ['quickstart', 'learn-masks', 'prune', 'distill', 'sample', 'evaluate', 'study', 'train']) expect(stdout).toContain(job);
  });

  it('learns masks, prunes, recovers and samples from files, and the shallow model carries its record', async () => {
    const learned = await run('learn-masks', '--model', 'teacher.safetensors', '--steps', '2', '--batch', '4', '--images', '100', '--run', 'a run', '--out', 'masks.json');
    expect(learned.code, learned.stderr).toBe(0);
    // what a run has learned so far is a decision too
    expect((await run('prune', '--model', 'teacher.safetensors', '--masks', 'a run/masks.json', '--out', 'so-far.safetensors')).code).toBe(0);
    const soFar = readPruneRecord((await loadSafetensors(file('so-far.safetensors'))).metadata)!;
    expect(soFar).toMatchObject({ criterion: 'learned', groups: [[1, 2], [1, 2]], learnedBy: "tinyfusion learn-masks --model teacher.safetensors --steps 2 --batch 4 --images 100 --run 'a run' --out masks.json --backend wasm" });
    const pruned = await run('prune', '--model', 'teacher.safetensors', '--masks', 'masks.json', '--out', 'shallow.safetensors');
    expect(pruned.code, pruned.stderr).toBe(0);
    const record = readPruneRecord((await loadSafetensors(file('shallow.safetensors'))).metadata);
    expect(record).toMatchObject({ criterion: 'learned', depth: 4, groups: [[1, 2], [1, 2]], teacher: { name: 'teacher.safetensors' } });
    const recovered = await run('distill', '--student', 'shallow.safetensors', '--teacher', 'teacher.safetensors', '--steps', '2', '--batch', '4', '--images', '100', '--out', 'recovered.safetensors');
    expect(recovered.code, recovered.stderr).toBe(0);
    const sampled = await run('sample', '--model', 'recovered.safetensors', '--classes', '0,1', '--steps', '2', '--out', 'samples.png');
    expect(sampled.code, sampled.stderr).toBe(0);
    expect((await parseSafetensors(new Uint8Array(await import('node:fs').then((fs) => fs.readFileSync(file('recovered.safetensors')))))).metadata.has('tinyfusion.prune')).toBe(true);
    expect(readdirSync(folder).filter((f) => f.endsWith('.part'))).toEqual([]);
  }, 120_000);

  it('cuts, recovers and cuts again in any format, each with the records of those before it', async () => {
    const small = ['--steps', '2', '--batch', '4', '--images', '64'];
    expect((await run('prune', '--keep', '0,1,3,5,8,11', '--out', 'half.pt')).code).toBe(0);
    expect((await run('distill', '--student', 'half.pt', ...small, '--alpha', '0', '--beta', '0', '--out', 'half-tuned.npz')).code).toBe(0);
    expect((await run('prune', '--model', 'half-tuned.npz', '--method', 'uniform', '--count', '3', '--out', 'quarter.npz')).code).toBe(0);
    const recovered = await run('distill', '--student', 'quarter.npz', '--teacher', 'half-tuned.npz', ...small, '--sigmas', 'auto', '--map', '0:1,2:5', '--decay', 'cosine', '--out', 'quarter.pt');
    expect([recovered.code, recovered.stdout]).toEqual([0, expect.stringMatching(/mask: [\d.]+ σ; block \d+ has \d+ % of its squared deviation/)]);
    expect((await run('inspect', 'quarter.pt')).stdout).toMatch(/3 of 6 blocks .* cut from half-tuned\.npz .* chosen by uniform.*6 of 12 blocks/s);
    expect((await run('sample', '--model', 'quarter.pt', '--classes', '1', '--steps', '1', '--out', 'quarter.png')).code).toBe(0);
    const grandparent = await run('distill', '--student', 'quarter.npz', ...small);
    expect(complaint(grandparent.stderr)).toEqual([expect.stringMatching(/from which that one was cut in turn.* With --any-teacher/)]);
    for (const [option, value, message] of [['--alpha', '2', /a share from 0/], ['--map', '0:1,1:30', /ascending pairs/], ['--guard', '1', /more than 1, or 0/], ['--sigmas', '-1', /--sigmas is -1, expected standard deviations above 0, 0 for no mask, or auto/], ['--out', 'x.bin', /ends in \.safetensors, \.pt or \.npz/]] as const) {
      const refused = await run('distill', '--student', 'half.pt', ...small, option, value);
      expect([refused.code, complaint(refused.stderr)]).toEqual([1, [expect.stringMatching(message)]]);
    }
  }, 300_000);
});

describe('files', () => {
  it('are looked into, cut and converted without a model, and PyTorch’s stay PyTorch’s', async () => {
    const model = createModel('DiT-S/2', { init: createRng(1), changes: { inputSize: 8, hiddenSize: 24, depth: 4, numClasses: 4 } });
    const tensors = await tensorsOf(model);
    await writeFileAtomic(file('run.pt'), await writeTorch([...tensors.map(([name, t]) => [`model.${name}`, t] as const), ...tensors.map(([name, t]) => [`ema.${name}`, t] as const)]));
    const seen = await run('inspect', 'run.pt');
    expect(seen.stdout).toMatch(/run\.pt: .* tensors.*\nparts: model \(\d+\), ema \(\d+\)\nmodel: 4 blocks of width 24, patch 2, 8×8×4 latents, 4 classes/);
    expect((JSON.parse((await run('inspect', 'run.pt', '--json')).stdout) as { types: object }).types).toHaveProperty('F32');
    const cut = await run('prune', '--ckpt', 'run.pt', '--keep', '0,3', '--out', 'cut.pt');
    expect([cut.code, cut.stdout.trim()]).toEqual([0, 'kept 0,3 of 4 blocks\nwrote cut.pt']);
    expect((await run('convert', 'cut.pt', 'cut.safetensors', '--dtype', 'F16')).code).toBe(0);
    const half = await loadSafetensors(file('cut.safetensors'));
    expect(half.tensors.get('blocks.1.mlp.fc1.weight')).toMatchObject({ dtype: 'F16', shape: [96, 24] });
    expect(half.tensors.has('blocks.2.mlp.fc1.weight')).toBe(false);
    await run('prune', '--ckpt', 'run.pt', '--method', 'oracle', '--out', 'cut2.safetensors');
    expect(readPruneRecord((await loadSafetensors(file('cut2.safetensors'))).metadata)).toMatchObject({ kept: [0, 3], depth: 4, criterion: 'oracle', teacher: { name: 'run.pt' } });
    expect((await run('inspect', 'cut2.safetensors')).stdout).toMatch(/2 of 4 blocks \(0, 3\), cut from run\.pt \(.*chosen by oracle/);
    // two stacks of a model that is not ours, by their names, with its configuration
    const flux = (name: string, count: number) => Array.from({ length: count }, (_, i) => [`${name}.${i}.attn.to_q.weight`, writableTensor(new Float32Array(4).fill(i), [2, 2])] as const);
    await writeFileAtomic(file('flux.safetensors'), writeSafetensors([...flux('transformer_blocks', 4), ...flux('single_transformer_blocks', 6), ['x_embedder.weight', writableTensor(new Float32Array(4), [2, 2])]]));
    writeFileSync(file('flux.json'), JSON.stringify({ _class_name: 'FluxTransformer2DModel', num_layers: 4, num_single_layers: 6 }));
    expect((await run('inspect', 'flux.safetensors')).stdout).toMatch(/stacks: single_transformer_blocks \(6 blocks.*transformer_blocks \(4 blocks/);
    const both = await run('prune', '--ckpt', 'flux.safetensors', '--keep', 'transformer_blocks:0,3;single_transformer_blocks:1,2,5', '--config', 'flux.json', '--out', 'small/flux.safetensors');
    expect([both.code, both.stdout.trim().split('\n').at(-1)]).toEqual([0, 'wrote small/flux.safetensors and config.json beside it']);
    expect(JSON.parse(readFileSync(file('small/config.json'), 'utf8'))).toMatchObject({ num_layers: 2, num_single_layers: 3 });
    // a prefix need not be said, and a last block of its own kind stays
    const joint = Array.from({ length: 4 }, (_, i) => [`model.diffusion_model.joint_blocks.${i}.x.weight`, writableTensor(new Float32Array(4).fill(i), [2, 2])] as const);
    await writeFileAtomic(file('sd3.safetensors'), writeSafetensors([...joint.slice(0, 3), ...joint.slice(0, 3).map(([name, t]) => [name.replace('.x.', '.context.'), t] as const), joint[3]!]));
    expect((await run('prune', '--ckpt', 'sd3.safetensors', '--method', 'first', '--count', '2', '--out', 'sd3-cut.safetensors')).stdout).toMatch(/^kept 0,3 of 4 blocks/);
    expect((await run('prune', '--ckpt', 'sd3.safetensors', '--keep', 'joint_blocks:1,3', '--out', 'sd3-cut.safetensors')).stdout).toMatch(/^kept 1,3 of 4 blocks of model\.diffusion_model\.joint_blocks/);
    expect(complaint((await run('prune', '--ckpt', 'sd3.safetensors', '--keep', '0,1', '--out', 'sd3-cut.safetensors')).stderr)).toEqual([expect.stringMatching(/layer 3 of model\.diffusion_model\.joint_blocks among them: it has other tensors/)]);
    // what is read is not written over
    for (const out of ['flux.safetensors', './flux.safetensors']) expect(complaint((await run('prune', '--ckpt', 'flux.safetensors', '--method', 'uniform', '--out', out)).stderr)).toEqual([expect.stringMatching(/--out is .*another file than --ckpt/)]);
    writeFileSync(file('small/config.json'), '{"num_layers": 4, "num_single_layers": 6}');
    expect(complaint((await run('prune', '--ckpt', 'flux.safetensors', '--method', 'uniform', '--config', 'small/config.json', '--out', 'small/other.safetensors')).stderr)).toEqual([expect.stringMatching(/would overwrite small\/config\.json/)]);
    const small = await loadSafetensors(file('small/flux.safetensors'));
    expect([...small.tensors.keys()]).toEqual(['transformer_blocks.0.attn.to_q.weight', 'transformer_blocks.1.attn.to_q.weight', 'single_transformer_blocks.0.attn.to_q.weight', 'single_transformer_blocks.1.attn.to_q.weight', 'single_transformer_blocks.2.attn.to_q.weight', 'x_embedder.weight']);
    expect(readPruneRecord(small.metadata)).toMatchObject({ stack: 'transformer_blocks,single_transformer_blocks', kept: [0, 3, 5, 6, 9], depth: 10 });
    // a model of ours cut as a file is a model of ours, with its blocks renumbered or with holes
    expect((await run('prune', '--ckpt', 'teacher.safetensors', '--keep', '1,3', '--out', 'ours.safetensors')).code).toBe(0);
    const ours = await loadSafetensors(file('ours.safetensors'));
    const holes = withHoles(ours, 'blocks', [1, 3]);
    await writeCheckpoint(file('holes.safetensors'), holes, { metadata: [...ours.metadata] });
    const drawn = await Promise.all(['ours', 'holes'].map((name) => run('sample', '--model', `${name}.safetensors`, '--classes', '1', '--steps', '2', '--out', `${name}.png`)));
    for (const { code, stderr } of drawn) expect(code, stderr).toBe(0);
    expect(readFileSync(file('holes.png')).equals(readFileSync(file('ours.png')))).toBe(true);
  }, 120_000);

  it.each([
    ['that is hostile', ['inspect', fileURLToPath(new URL('../fixtures/golden/files/malicious_reduce.pt', import.meta.url))], /asks for .*system.*nothing was run/],
    ['without such blocks', ['prune', '--ckpt', 'teacher.safetensors', '--stack', 'layers', '--keep', '0'], /no blocks called layers\.0/],
    ['to a format that is none', ['convert', 'teacher.safetensors', 'x.bin'], /names no format/],
  ])('%s end in one line and exit code 1', async (_name, args, message) => {
    const { code, stderr } = await run(...args);
    expect(stderr).toMatch(message);
    expect(complaint(stderr).length).toBe(1);
    expect(code).toBe(1);
  });
});

describe('weights of a reference', () => {
  it.each([
    ['DiT-S/8', 'ddpm'],
    ['SiT-S/8', 'sde'],
  ])('%s: from a PyTorch file and an autoencoder in npz to a picture, the same for the same seed', async (name, solver) => {
    const model = createModel(name, { init: createRng(1), changes: { inputSize: 8, patchSize: 2, hiddenSize: 24, depth: 2, numClasses: 4 } });
    const vae = new AutoencoderKL({ inChannels: 3, channels: 32, channelMultipliers: [1, 1], numResBlocks: 1, latentChannels: 4, groups: 32, scalingFactor: 0.18215 }, { init: createRng(2) });
    await writeFileAtomic(file('reference.pt'), await writeTorch(await tensorsOf(model)));
    await writeFileAtomic(file('vae.npz'), await writeNpz(await tensorsOf(vae)));
    const draw = (out: string, ...args: string[]) => run('sample', '--model', name, '--ckpt', 'reference.pt', '--heads', '6', '--vae', 'vae.npz', '--classes', '0,3', '--solver', solver, '--steps', '3', '--rng', 'torch-cuda', '--out', out, ...args);
    const { code, stderr, stdout } = await draw('a.png');
    expect(stderr).toMatch(/sample: 3\/3 step/);
    expect([code, stdout.trim()]).toEqual([0, 'wrote a.png']);
    // all of its classes where none is named
    expect(await run('sample', '--model', name, '--ckpt', 'reference.pt', '--heads', '6', '--vae', 'vae.npz', '--solver', solver, '--steps', '3', '--out', 'four')).toMatchObject({ code: 0, stdout: 'wrote 4 images in four\n' });
    await draw('b.png');
    await draw('c.png', '--seed', '5464');
    const [a, b, c] = ['a.png', 'b.png', 'c.png'].map((png) => readFileSync(file(png))) as [Buffer, Buffer, Buffer];
    expect(a.subarray(1, 4).toString()).toBe('PNG');
    expect(a.equals(b)).toBe(true);
    expect(a.equals(c)).toBe(false);
  }, 120_000);
});

it.skipIf(process.platform === 'win32')('leaves the old file as it was where there is no room for the new one', async () => {
  writeFileSync(file('kept.safetensors'), 'the old file');
  // a limit on files' sizes in place of a full disk: writes fail in the same way
  const { stderr, code } = await new Promise<{ stderr: string; code: number }>((resolve) => {
    execFile('/bin/sh', ['-c', `ulimit -f 8; exec "${process.execPath}" "${bin}" convert teacher.safetensors kept.safetensors`], { cwd: folder }, (error, _stdout, text) => resolve({ stderr: text, code: error === null ? 0 : Number(error.code) }));
  });
  expect(stderr).toMatch(/error: kept\.safetensors cannot be written: /);
  expect(code).toBe(1);
  expect(readFileSync(file('kept.safetensors'), 'utf8')).toBe('the old file');
  expect(readdirSync(folder).filter((name) => name.includes('.part'))).toEqual([]);
});

it('turns names into diffusers’ and back, and models into ONNX', async () => {
  for (const [from, back] of [['reference.pt', 'again.pt'], ['vae.npz', 'again.npz']] as const) {
    expect((await run('convert', from, 'theirs.safetensors', '--names', 'diffusers')).code).toBe(0);
    expect((await run('convert', 'theirs.safetensors', back, '--names', 'upstream')).code).toBe(0);
    const [ours, again] = await Promise.all([from, back].map(async (name) => {
      await using checkpoint = await openCheckpoint(file(name));
      return Promise.all([...checkpoint.tensors].filter(([key]) => key !== 'pos_embed').map(async ([key, record]) => `${key} ${record.shape} ${Buffer.from(await record.read()).toString('base64')}`));
    }));
    expect(again!.toSorted()).toEqual(ours!.toSorted());
  }
  // diffusers' files have no position embedding, which alone tells the size
  await run('convert', 'reference.pt', 'theirs.safetensors', '--names', 'diffusers');
  const tokens = async (name: string): Promise<number> => {
    await using checkpoint = await openCheckpoint(file(name));
    return checkpoint.tensors.get('pos_embed')!.shape[1]!;
  };
  expect((await run('convert', 'theirs.safetensors', 'again.pt', '--names', 'upstream')).stderr).toContain('taken for 256 × 256; for others say --image-size');
  expect(await tokens('again.pt')).toBe(256);
  expect((await run('convert', 'theirs.safetensors', 'again.pt', '--names', 'upstream', '--image-size', '512')).stderr).not.toContain('note:');
  expect(await tokens('again.pt')).toBe(1024);
  expect((await run('convert', 'theirs.safetensors', 'again.pt', '--names', 'upstream', '--image-size', '100')).stderr).toMatch(/inputSize is 12\.5, expected a positive multiple/);
  expect((await run('convert', 'teacher.safetensors', 'x.safetensors', '--names', 'diffusers')).code).toBe(0);
  expect((await run('convert', 'nothing.npz', 'x.pt', '--names', 'diffusers')).code).toBe(1);
  const { code, stderr, stdout } = await run('convert', 'teacher.safetensors', 'teacher.onnx', '--dtype', 'F16');
  expect(code, stderr).toBe(0);
  expect(stdout).toContain('wrote teacher.onnx');
  expect(complaint(stderr).filter((line) => !/^(load weights|write ONNX)( …|: )/.test(line)), 'tfjs advises nothing').toEqual([]);
  expect((await run('convert', 'reference.pt', 'reference.onnx', '--model', 'DiT-S/8', '--heads', '6')).code).toBe(0);
  expect((await run('convert', 'reference.pt', 'x.onnx', '--model', 'DiT-S/8')).stderr).toMatch(/error: the checkpoint is 24 wide and DiT-S\/8 384: as no published DiT is; give its number of heads.*--heads/);
  expect((await run('convert', 'vae.npz', 'vae.onnx', '--part', 'encoder')).code).toBe(0);
  expect((await run('convert', 'reference.pt', 'x.onnx')).stderr).toMatch(/name it with --model/);
}, 120_000);

it('lists published weights, and takes those that were put into the cache by hand', async () => {
  const { code, stdout } = await run('fetch');
  expect(code).toBe(0);
  expect(stdout).toMatch(/tinydit-d14\s+TinyDiT of 14 layers.*CC-BY-NC-4\.0/);
  mkdirSync(file('cache'), { recursive: true });
  writeFileSync(file('cache/taesd.safetensors'), readFileSync(file('teacher.safetensors')));
  expect((await run('fetch', 'taesd')).stdout).toMatch(/^taesd: .*taesd\.safetensors, \d/);
  expect((await run('fetch')).stdout).toMatch(/taesd\s+✓/);
});

describe('worker threads', () => {
  const small = ['--count', '5', '--batch', '2', '--steps', '2'];

  it('draw and measure what one draws and measures, and report the images of all', async () => {
    const numbers: unknown[] = [];
    for (const workers of ['1', '2']) {
      for (const [name, ...model] of [['dit', '--model', 'teacher.safetensors', '--solver', 'ddpm'], ['mar', '--model', 'MAR']]) {
        const drawn = await run('sample', ...model, ...small, '--workers', workers, '--out', `${name}-${workers}.npz`);
        expect([drawn.code, drawn.stdout], drawn.stderr).toEqual([0, `wrote ${name}-${workers}.npz\n`]);
        expect(drawn.stderr).toContain('sample: 5/5 image');
      }
      const measured = await run('evaluate', '--model', 'teacher.safetensors', '--samples', '150', '--steps', '1', '--workers', workers, '--json', `measured-${workers}.json`);
      expect(measured.code, measured.stderr).toBe(0);
      expect(measured.stderr).toContain('sample: 150/150 image');
      const { imagesPerSecond, command, ...rest } = JSON.parse(readFileSync(file(`measured-${workers}.json`), 'utf8')) as Record<string, unknown>;
      expect([imagesPerSecond, command]).toEqual([expect.any(Number), expect.stringContaining(`--workers ${workers}`)]);
      numbers.push(rest);
    }
    expect(numbers[1]).toEqual(numbers[0]);
    // of random classes, as none is named
    await using archive = await openCheckpoint(file('dit-1.npz'));
    expect(await toFloat32(archive.tensors.get('arr_1')!)).toEqual(Float32Array.from(createRng(0).split('labels').integers(0, 10, 5)));
    for (const name of ['dit', 'mar']) expect(readFileSync(file(`${name}-2.npz`))).toEqual(readFileSync(file(`${name}-1.npz`)));
  }, 120_000);

  it('end with one line where one fails or they cannot be had', async () => {
    for (const [args, line] of [
      [['sample', '--classes', '11', '--workers', '2'], /^error: rank [01] of 2 failed: labels is 11, expected integers from 0 to 9$/],
      [['sample', '--backend', 'webgpu', '--workers', '2'], /^error: --workers is 2, expected 1 with --backend webgpu/],
    ] as const) {
      const { code, stderr } = await run(...args);
      expect([code, complaint(stderr)]).toEqual([1, [expect.stringMatching(line)]]);
    }
    expect((await run('sample', '--classes', '11', '--workers', '2', '--debug')).stderr).toMatch(/\n\s+at /);
  }, 60_000);

  it('all stop at Ctrl-C, and leave no half of a file', async () => {
    const cwd = file('stopped');
    mkdirSync(cwd);
    const child = spawn(process.execPath, [bin, 'sample', '--count', '4000', '--batch', '4', '--steps', '4', '--backend', 'wasm', '--workers', '2', '--out', 'many.npz'], { cwd, stdio: ['ignore', 'ignore', 'pipe'] });
    let stderr = '';
    child.stderr.on('data', (text: Buffer) => {
      stderr += text.toString();
      // images have been written
      if (!stderr.includes('stopping') && /sample: \d+\/4000.*\n$/.test(stderr)) child.kill('SIGINT');
    });
    const code = await new Promise((resolve) => child.once('close', resolve));
    expect([code, stderr]).toEqual([130, expect.stringContaining('stopped. The same command begins anew')]);
    expect(readdirSync(cwd)).toEqual([]);
  }, 60_000);
});

describe('evaluation from files', () => {
  it('keeps statistics of a folder, and measures a folder, an archive and a model against them', async () => {
    await writeCheckpoint(file('inception.safetensors'), formulaState(Object.fromEntries(inceptionShapes()), 2.8));
    mkdirSync(file('real/cats'), { recursive: true });
    for (let i = 0; i < 5; i++) writeFileSync(file(`real/cats/${i}.png`), encode({ width: 16, height: 16, channels: 3, data: Uint8Array.from(createRng(i).uniform(768), (u) => 256 * u) }));
    const network = ['--inception', 'inception.safetensors'];
    const stats = await run('stats', 'real', ...network, '--out', 'stats.npz');
    expect(stats.code, stats.stderr).toBe(0);
    expect(stats.stderr).toMatch(/note: 5 images for 2048 features: their covariance is singular/);
    const same = await run('evaluate', 'stats.npz', 'real', ...network, '--json', 'same.json');
    expect(same.code, same.stderr).toBe(0);
    const numbers = JSON.parse(readFileSync(file('same.json'), 'utf8')) as Record<string, number>;
    expect(Math.abs(numbers['fid']!)).toBeLessThan(1e-5);
    expect(Math.abs(numbers['sfid']!)).toBeLessThan(1e-5);
    expect(Object.keys(numbers)).not.toContain('precision');
    expect(numbers['command']).toContain('tinyfusion evaluate stats.npz real');
    const drawn = await run('evaluate', 'real', ...network, '--ckpt', 'reference.pt', '--model', 'DiT-S/8', '--heads', '6', '--vae', 'vae.npz', '--samples', '5', '--batch', '2', '--steps', '2', '--metrics', 'fid,pr,kid');
    expect(drawn.code, drawn.stderr).toBe(0);
    const found = JSON.parse(drawn.stdout) as Record<string, unknown>;
    expect(found).toMatchObject({ precision: 0, counts: { samples: 5, reference: 5 }, network: 'Inception of 2015-12-05' });
    expect(found['fid']).toBeGreaterThan(1);
    expect(drawn.stderr).toMatch(/note: 5 samples: papers measure 50,000/);
    const refused = await run('evaluate', 'stats.npz', 'real', ...network, '--metrics', 'pr');
    expect([refused.code, complaint(refused.stderr)]).toEqual([1, [expect.stringMatching(/metrics is "pr".*stats\.npz has statistics alone/)]]);
    expect((await run('evaluate', 'stats.npz', 'real')).stderr).toMatch(/pt_inception-2015-12-05-6726825d\.pth is not in the cache, and offline/);
  }, 200_000);
});
