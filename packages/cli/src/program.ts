import { ArgumentError } from '@tinyfusion/core';
import { Command, InvalidArgumentError, Option } from 'commander';
import { availableParallelism } from 'node:os';
import { checkNeeded } from './needed-options.js';
import { runJob } from './run.js';

const count = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a positive integer.');
  return value;
};

const seed = (text: string): number => {
  const value = Number(text);
  if (text.trim() === '' || !Number.isSafeInteger(value) || value < 0) throw new InvalidArgumentError('expected an integer from 0.');
  return value;
};

const number = (text: string): number => {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('expected a number.');
  return value;
};

const rate = (text: string): number => {
  const value = number(text);
  if (value <= 0) throw new InvalidArgumentError('expected a number above 0, e.g. 1e-3: less would climb the loss, and 0 learns nothing.');
  return value;
};

const above0 = (text: string): number => {
  const value = number(text);
  if (value <= 0) throw new InvalidArgumentError('expected a number above 0.');
  return value;
};

const from0 = (text: string): number => {
  const value = number(text);
  if (value < 0) throw new InvalidArgumentError('expected 0 or more.');
  return value;
};

/** A positive integer up to `most`. */
const upTo = (most: number) => (text: string): number => {
  const value = count(text);
  if (value > most) throw new InvalidArgumentError(`expected ${most} at most.`);
  return value;
};

/** Pixels; an image of more does not fit into an array with its neighbours. */
const side = upTo(4096);

const threads = upTo(Math.max(64, availableParallelism()));

/** An option that may come several times. */
const several = (text: string, before: readonly string[] = []): string[] => [...before, text];

const sigmas = (text: string): number | 'auto' => (text === 'auto' ? text : number(text));

const seeds = (text: string): number[] => text.split(',').map(seed);

const metrics = (text: string): ('fid' | 'sfid' | 'is' | 'pr' | 'kid' | 'fid-infinity')[] => {
  const list = text.split(',');
  const known = ['fid', 'sfid', 'is', 'pr', 'kid', 'fid-infinity'] as const;
  return list.map((name) => known.find((k) => k === name) ?? invalid(`expected some of ${known.join(', ')}.`));
};

const invalid = (message: string): never => {
  throw new InvalidArgumentError(message);
};

/** The command line. Jobs live in @tinyfusion/recipes; this parses options for them. */
export function program(): Command {
  const main = new Command('tinyfusion').description('Makes diffusion transformers shallow: learn which layers to keep, remove the others, recover, sample, measure.').showHelpAfterError('(tinyfusion <job> --help lists the options)');

  job(main, 'quickstart', 'the whole path on embedded Fashion-MNIST, with a report to look at')
    .option('--fast', 'a few steps of everything, to see that it works')
    .option('--out <folder>', 'where the report and models go', 'runs/quickstart')
    .option('--seed <n>', 'random seed', seed, 0)
    .action((options) =>
      runJob(options, async (context) => {
        const { fastSizes, quickstart, quickstartSizes } = await import('@tinyfusion/recipes/node');
        const { report, rows } = await quickstart({ ...context, out: options.out, sizes: options.fast === true ? fastSizes : quickstartSizes, seed: options.seed });
        console.table(Object.fromEntries(rows.map((r) => [r.name, { layers: r.layers, 'images/s': +r.imagesPerSecond.toFixed(1), FID: +r.fid.toFixed(2), IS: +r.inceptionScore.toFixed(2), precision: +r.precision.toFixed(3), recall: +r.recall.toFixed(3), agreement: +r.agreement.toFixed(2), kept: r.kept?.join(' ') ?? '' }])));
        console.log(`report: ${report}`);
      }, { resumes: true }),
    );

  job(main, 'learn-masks', 'learn which layers of a model to keep')
    .option('--model <file>', 'checkpoint of ours, or SiT or MAR for their embedded teachers (default: the embedded DiT)')
    .option('--groups <scheme>', "N:M, e.g. '1:2', or a list, e.g. '2:4,3:4,1:4'", '1:2')
    .option('--steps <n>', 'steps', count, 1000)
    .option('--batch <n>', 'samples a step', count, 64)
    .option('--parts <n>', 'compute a batch in so many parts, for less memory at a time (default: 1, more where it does not fit)', count)
    .option('--recompute', 'compute blocks a second time for their gradients, for less memory and one more forward pass of them')
    .option('--lr <x>', 'learning rate of the adapters', rate, 1e-3)
    .option('--gate-lr <x>', 'learning rate of the gates', rate, 1e-3)
    .addOption(new Option('--update <what>', 'what moves beside the gates').choices(['lora', 'full', 'frozen']).default('lora'))
    .addOption(new Option('--per <what>', 'a mask for each sample, or one a step, whose dropped blocks are not computed').choices(['sample', 'batch']).default('sample'))
    .option('--stop-at <p>', 'end when every group is this sure, 0 to 1, and the decision has stood for a tenth of the steps', number)
    .addOption(new Option('--warm-start <criterion>', 'gates start from its scores').choices(['block-influence', 'block-error', 'sensitivity', 'taylor']))
    .option('--data <path>', 'train on this: a pack (tinyfusion pack), or a folder of IDX files (default: the embedded images)')
    .option('--images <n>', 'training images to use, where they are encoded here: the embedded, IDX', count, 10_000)
    .option('--seed <n>', 'random seed', seed, 0)
    .option('--run <folder>', 'keep the run there: the same command goes on after whatever ended it')
    .option('--save-every <n>', 'with --run: steps between saves', count, 100)
    .option('--keep-every <n>', 'with --run: saves at multiples of this are kept beside the last three', count)
    .option('--out <file>', 'the decision as JSON', 'masks.json')
    .action((options) => runJob(options, async (context) => (await import('@tinyfusion/recipes/node')).learnMasksJob(options, context), { shared: true }));

  job(main, 'learn-branches', 'learn which attention and MLP branches to keep, for a model that is as much faster on this device as asked')
    .requiredOption('--faster <x>', 'how many times as fast a forward pass is to be, e.g. 1.4', number)
    .option('--model <file>', 'a DiT or SiT checkpoint of ours, or SiT for its embedded teacher (default: the embedded DiT)')
    .option('--steps <n>', 'steps', count, 1000)
    .option('--batch <n>', 'samples a step; the batch that is timed, too', count, 64)
    .option('--parts <n>', 'compute a batch in so many parts, for less memory at a time (default: 1, more where it does not fit)', count)
    .option('--lr <x>', 'learning rate of the adapters', rate, 1e-4)
    .option('--gate-lr <x>', 'learning rate of the gates', rate, 1e-3)
    .option('--data <path>', 'train on this: a pack (tinyfusion pack), or a folder of IDX files (default: the embedded images)')
    .option('--images <n>', 'training images to use, where they are encoded here: the embedded, IDX', count, 10_000)
    .option('--seed <n>', 'random seed', seed, 0)
    .option('--run <folder>', 'keep the run there: the same command goes on after whatever ended it')
    .option('--save-every <n>', 'with --run: steps between saves', count, 100)
    .option('--keep-every <n>', 'with --run: saves at multiples of this are kept beside the last three', count)
    .option('--out <file>', 'the decision as JSON, for prune --masks', 'branches.json')
    .action((options) => runJob(options, async (context) => (await import('@tinyfusion/recipes/node')).learnBranchesJob(options, context), { shared: true }));

  job(main, 'prune', 'cut a model to chosen layers')
    .option('--model <file>', 'checkpoint of ours, or SiT or MAR for their embedded teachers (default: the embedded DiT)')
    .option('--ckpt <file>', 'cut this file as it is, .pt, .safetensors or .npz of any residual stack, without running it')
    .option('--stack <names>', 'with --ckpt: the blocks to cut, e.g. double_blocks,single_blocks (default: told by the file)')
    .option('--config <file>', 'with --ckpt: the model’s config.json, changed and written beside --out')
    .option('--weights <key>', 'with --ckpt: which weights of a training checkpoint (default: ema, then model)')
    .option('--masks <file>', 'a decision of learn-masks or learn-branches')
    .option('--keep <list>', 'layers to keep, e.g. 0,2,5; with --ckpt also by stack, double_blocks:0,2;single_blocks:1,3')
    .addOption(new Option('--method <name>', 'a choice to compare with').choices(['block-influence', 'block-error', 'sensitivity', 'taylor', 'cka', 'oracle', 'random', 'first', 'last', 'uniform']))
    .option('--count <n>', 'layers that --method keeps (default: half)', count)
    .addOption(new Option('--replace <with>', 'put a linear layer, fitted in closed form, in the place of each removed run').choices(['linear']))
    .option('--data <path>', 'with criteria that run the model, and --replace: what they look at, a pack (tinyfusion pack) or a folder of IDX files (default: the embedded images)')
    .option('--images <n>', 'the first so many images of it, where they are encoded here (default: 1000)', count)
    .option('--seed <n>', 'random seed', seed, 0)
    .option('--out <file>', 'the shallow checkpoint', 'shallow.safetensors')
    .action((options) => runJob(options.ckpt === undefined ? options : { ...options, backend: 'cpu' }, async (context) => (await import('@tinyfusion/recipes/node')).pruneJob(options, context)));

  job(main, 'distill', 'recover a shallow model from its teacher')
    .requiredOption('--student <file>', 'the shallow checkpoint')
    .option('--teacher <file>', 'checkpoint of ours, or SiT or MAR for their embedded teachers (default: the embedded DiT)')
    .option('--any-teacher', 'take it even if the student was cut from another model')
    .option('--steps <n>', 'steps', count, 1000)
    .option('--batch <n>', 'samples a step', count, 64)
    .option('--parts <n>', 'compute a batch in so many parts, for less memory at a time (default: 1, more where it does not fit)', count)
    .option('--recompute', 'compute blocks a second time for their gradients, for less memory and one more forward pass of them')
    .option('--lr <x>', 'first learning rate', rate, 1e-3)
    .option('--alpha <x>', 'weight of the teacher’s output against the truth, 0 to 1 (with --beta 0, 0 is fine-tuning alone)', number, 0.9)
    .option('--sigmas <k>', 'mask activations from k standard deviations on (0: no mask; auto: proposed by the teacher’s activations)', sigmas, 2)
    .option('--beta <x>', 'first weight of the feature loss (0: output distillation alone)', number, 0.01)
    .addOption(new Option('--decay <how>', 'how the feature loss fades').choices(['linear', 'cosine', 'constant']).default('linear'))
    .option('--map <pairs>', 'which layer follows which: even, choice, or student:teacher pairs, e.g. 0:1,1:3 (default: by the student’s record, else even)')
    .option('--guard <x>', 'end where a layer’s feature loss is this many times what it usually is (0: never)', number, 20)
    .addOption(new Option('--mask <whose>', 'whose massive activations are masked: each side’s own, or either’s on both').choices(['official', 'intersection']).default('official'))
    .option('--data <path>', 'train on this: a pack (tinyfusion pack), or a folder of IDX files (default: the embedded images)')
    .option('--images <n>', 'training images to use, where they are encoded here: the embedded, IDX', count, 10_000)
    .option('--seed <n>', 'random seed', seed, 0)
    .option('--run <folder>', 'keep the run there: the same command goes on after whatever ended it')
    .option('--save-every <n>', 'with --run: steps between saves', count, 100)
    .option('--keep-every <n>', 'with --run: saves at multiples of this are kept beside the last three', count)
    .option('--sample-every <n>', 'with --run: steps between pictures of samples, a multiple of --save-every', count)
    .option('--vae <file>', 'with --sample-every: autoencoder of the pictures, where the latents are not the embedded one’s')
    .option('--out <file>', 'the recovered checkpoint', 'recovered.safetensors')
    .action((options) => runJob(options, async (context) => (await import('@tinyfusion/recipes/node')).distillJob(options, context), { shared: true }));

  job(main, 'sample', 'draw images')
    .option('--model <file>', 'checkpoint of ours, or SiT or MAR for their embedded teachers (default: the embedded DiT); with --ckpt the name of its model, e.g. DiT-XL/2')
    .option('--ckpt <file>', 'weights of a published DiT, SiT or MAR: .pt, .safetensors, .npz; or their name, e.g. tinydit-d14')
    .option('--heads <n>', 'with --ckpt: attention heads of a model that is as wide as no published one', count)
    .option('--weights <key>', 'which weights of a training checkpoint (default: ema, then model)')
    .option('--lora <path>', 'put a PEFT adapter into the weights: its folder, with @ and a strength or without, e.g. style@0.8; may come several times', several)
    .option('--vae <file>', 'with --ckpt: weights of the autoencoder (default: what the model was trained with, fetched)')
    .option('--preview <file>', 'with --ckpt of a DiT: weights of TAESD; what is being drawn is shown in <out>.preview.png')
    .addOption(new Option('--dtype <type>', 'how weights are held on the device: float32, or in half, a quarter or an eighth of its space').choices(['F32', 'F16', 'I8', 'I4']).default('F32'))
    .addOption(new Option('--rng <stream>', 'with --ckpt: random stream of the seed (default: torch-cuda, what the references draw)').choices(['philox', 'torch-cuda', 'torch-cpu']))
    .option('--classes <list>', "numbers or ImageNet's names, e.g. 207,'red panda' (default: each class twice; with --ckpt eight of ImageNet)", (text: string) => text.split(','))
    .option('--count <n>', 'images in all, of random classes or of --classes in turn (default: one a class)', count)
    .option('--batch <n>', 'images at once (default: 32; with --ckpt and without --count all)', count)
    .option('--steps <n>', 'sampling steps (default: 20; with --ckpt the reference’s)', count)
    .addOption(new Option('--solver <name>', 'solver (default: dpm; with --ckpt the reference’s)').choices(['dpm', 'ddim', 'ddpm', 'ode', 'sde', 'mar']))
    .option('--cfg <x>', 'strength of classifier-free guidance (default: 2.5; with --ckpt 4)', from0)
    .option('--step-cache <error>', 'leave out blocks on steps that hardly need them, up to this relative error, which is measured on one sample first, e.g. 0.05', above0)
    .option('--no-compile', 'on WebGPU, run the model anew at each step instead of recording a step once')
    .option('--workers <n>', 'threads that share the images, each with the model; for the same --batch the images are those of one (with --ckpt each thread has a stream of its own)', threads, 1)
    .option('--seed <n>', 'random seed', seed, 0)
    .option('--out <path>', 'a .png for one picture, an .npz for evaluation, or a folder of PNGs', 'samples.png')
    .action((options) => runJob(options, { name: 'sample', args: [options] }));

  job(main, 'evaluate', 'FID, sFID, IS, precision and recall: of samples against a reference, or of a model')
    .argument('[reference]', 'reference batch .npz as ADM’s, saved statistics (.npz, .pt), or a folder of images')
    .argument('[samples]', 'samples: .npz with arr_0 of bytes [N, H, W, 3], or a folder of images (without: --ckpt draws them)')
    .option('--inception <file>', 'weights of FID’s Inception: pt_inception-2015-12-05, or TensorFlow’s classify_image_graph_def.pb (default: fetched)')
    .option('--dinov2 <file>', 'weights of DINOv2 in its place, for FD-DINOv2')
    .option('--metrics <list>', 'of fid, sfid, is, pr (precision, recall, density, coverage), kid and fid-infinity (default: the first four)', metrics)
    .option('--skip-broken', 'leave out images that cannot be decoded, and count them')
    .option('--model <file>', 'checkpoint of ours, or SiT or MAR for their embedded teachers (default: the embedded DiT); with --ckpt the name of its model, e.g. DiT-XL/2')
    .option('--ckpt <file>', 'weights of a published model that draws the samples')
    .option('--heads <n>', 'with --ckpt: attention heads of a model that is as wide as no published one', count)
    .option('--weights <key>', 'with --ckpt: which weights of a training checkpoint (default: ema, then model)')
    .option('--vae <file>', 'with --ckpt: weights of the autoencoder (default: what the model was trained with, fetched)')
    .addOption(new Option('--dtype <type>', 'with --ckpt: how weights are held on the device').choices(['F32', 'F16', 'I8', 'I4']))
    .addOption(new Option('--rng <stream>', 'with --ckpt: random stream of the seed (default: torch-cuda)').choices(['philox', 'torch-cuda', 'torch-cpu']))
    .addOption(new Option('--solver <name>', 'with --ckpt: solver (default: the reference’s)').choices(['dpm', 'ddim', 'ddpm', 'ode', 'sde', 'mar']))
    .option('--samples <n>', 'samples (default: 2000; with --ckpt 50,000)', count)
    .option('--batch <n>', 'images a pass (default: 32; of the embedded data 64)', count)
    .option('--steps <n>', 'sampling steps (default: 20; a MAR: iterations, one a token at most; with --ckpt the reference’s)', count)
    .option('--cfg <x>', 'strength of classifier-free guidance (default: 1.5)', from0)
    .option('--no-compile', 'on WebGPU, run the model anew at each step instead of recording a step once')
    .option('--workers <n>', 'threads that share the images, each with the networks; for the same --batch the numbers are those of one (with --ckpt each thread has a stream of its own)', threads, 1)
    .option('--seed <n>', 'random seed', seed, 0)
    .option('--json <file>', 'write the numbers there too')
    .action((reference: string | undefined, samples: string | undefined, options) => runJob(options, { name: 'evaluate', args: [options, reference, samples] }));

  job(main, 'stats', 'statistics of a set of images, to measure samples against')
    .argument('<images...>', 'an .npz or a folder; several are taken together')
    .option('--inception <file>', 'weights of FID’s Inception (default: fetched)')
    .option('--dinov2 <file>', 'weights of DINOv2 in its place')
    .addOption(new Option('--layout <name>', 'whose layout').choices(['adm', 'pytorch-fid', 'torch-fidelity']).default('adm'))
    .option('--batch <n>', 'images a pass', count, 32)
    .option('--workers <n>', 'threads that share the images, each with the network; the statistics are those of one', threads, 1)
    .option('--skip-broken', 'leave out images that cannot be decoded, and count them')
    .option('--out <file>', 'an .npz, or a .pt for torch-fidelity', 'stats.npz')
    .action((images: string[], options) => runJob(options, { name: 'stats', args: [options, images] }));

  fileJob(main, 'fetch', 'published weights into the cache; without a name, which there are')
    .argument('[names...]', 'e.g. tinydit-d14, sd-vae-ft-ema; a URL, or hf://owner/repository/path')
    .action((names: string[], options) => runJob(options, async (context) => (await import('@tinyfusion/recipes/files')).fetchJob(names, context), { resumes: true }));

  fileJob(main, 'inspect', 'what is in a checkpoint, without loading it')
    .argument('<file>', '.pt, .safetensors, .npz, or the .index.json of a sharded one')
    .option('--tensors', 'list every tensor')
    .option('--json', 'as JSON')
    .action((path: string, options) => runJob(options, async (context) => (await import('@tinyfusion/recipes/files')).inspectJob(path, options, context)));

  fileJob(main, 'convert', 'a checkpoint in another format, type, or naming; or a model as ONNX')
    .argument('<from>', '.pt, .safetensors, .npz, or the .index.json of a sharded one; or the name of a published one')
    .argument('<to>', 'ends in .safetensors, .pt, .npz or .onnx')
    .addOption(new Option('--dtype <type>', 'type of the floats (default: as they are)').choices(['F32', 'F16']))
    .addOption(new Option('--names <whose>', 'names of a DiT’s or an autoencoder’s tensors (default: as they are)').choices(['upstream', 'diffusers']))
    .option('--image-size <n>', 'with --names upstream: side of the images of a DiT whose file does not tell, e.g. 512 (default: 256)', side)
    .option('--lora <path>', 'put a PEFT adapter into the weights: its folder, with @ and a strength or without, e.g. style@0.8; may come several times', several)
    .option('--weights <key>', 'which weights of a training checkpoint (default: ema, then model)')
    .option('--whole', 'all tensors of a training checkpoint, under their paths')
    .option('--model <name>', 'to .onnx: the model of a published checkpoint, e.g. DiT-D14/2')
    .option('--heads <n>', 'to .onnx, with --model: attention heads of a model that is as wide as no published one', count)
    .addOption(new Option('--part <name>', 'to .onnx: which network of an autoencoder (default: decoder) or a MAR (default: transformer)').choices(['decoder', 'encoder', 'transformer', 'head']))
    .action((from: string, to: string, options) =>
      to.endsWith('.onnx')
        ? runJob({ ...options, backend: 'cpu' }, async (context) => (await import('@tinyfusion/recipes/node')).onnxJob(from, to, options, context))
        : runJob(options, async (context) => (await import('@tinyfusion/recipes/files')).convertJob(from, to, options, context)),
    );

  job(main, 'encode', 'a folder of images, each class a folder in it, to latents and labels for training')
    .argument('<folder>', 'images: .png, .jpg, .webp …')
    .option('--vae <file>', 'weights of the autoencoder, or the name of published ones', 'sd-vae-ft-ema')
    .option('--size <n>', 'side of the centre crop', side, 256)
    .option('--batch <n>', 'images at once, each plain and flipped', count, 4)
    .addOption(new Option('--rng <stream>', 'random stream of the seed; torch-cuda draws what the reference draws').choices(['philox', 'torch-cuda', 'torch-cpu']).default('torch-cuda'))
    .option('--seed <n>', 'random seed', seed, 0)
    .option('--skip-broken', 'leave out files that cannot be decoded, and count them')
    .option('--out <folder>', 'where imagenet<size>_features and imagenet<size>_labels go', 'features')
    .action((folder: string, options) => runJob(options, async (context) => (await import('@tinyfusion/recipes/node')).encodeJob(folder, options, context), { resumes: true }));

  job(main, 'pack', 'samples for training in shards, read in any order; the same command goes on with a pack')
    .argument('<source>', 'images in a folder for each class; IDX files; <name>_features and <name>_labels of .npy files, as encode writes; an .npz with labels; a pack of images')
    .option('--vae <file>', 'make latents of images: weights of an autoencoder, the name of published ones, or embedded (default: they stay bytes)')
    .option('--size <n>', 'side of the centre crop of a folder of images (default: 256)', side)
    .option('--classes <n>', 'number of classes, where the source does not say (default: the largest label and one)', count)
    .option('--no-flip', 'leave out the flipped view of each image')
    .option('--batch <n>', 'samples at a time (default: 64; with --vae 4)', count)
    .option('--seed <n>', 'with --vae: random seed of the draws from its posteriors', seed, 0)
    .option('--skip-broken', 'leave out files that cannot be decoded, and count them')
    .option('--out <folder>', 'the pack', 'pack')
    .action((source: string, options) => runJob(options, async (context) => (await import('@tinyfusion/recipes/node')).packJob(source, options, context), { resumes: true }));

  fileJob(main, 'watch', 'a run in a page of this machine while it goes on: loss, gates, decisions, activations, samples')
    .argument('<run>', 'the folder of --run, or of train --out')
    .option('--port <n>', 'port on 127.0.0.1 (default: any that is free)', upTo(65_535))
    .option('--idle <minutes>', 'minutes without anybody looking after which it ends', above0, 10)
    .action((run: string, options) => runJob(options, async (context) => (await import('@tinyfusion/recipes/node')).watchJob(run, options, context)));

  job(main, 'study', 'an experiment of the paper on the embedded teacher; without a name, which there are')
    .argument('[name]', 'methods, masks, patterns, recovery, teachers, convergence, speed, dynamics, activations, learning-rates')
    .option('--fast', 'a few steps of everything, to see that it works')
    .addOption(new Option('--family <name>', 'whose embedded teacher (default: DiT); methods alone for the others').choices(['DiT', 'SiT', 'MAR']))
    .option('--seeds <list>', 'seeds (default: 0,1,2)', seeds)
    .option('--mask-steps <n>', 'steps of mask learning (default: 600)', count)
    .option('--recovery-steps <n>', 'steps of recovery (default: 400)', count)
    .option('--samples <n>', 'samples a model is measured by (default: 1000)', count)
    .option('--out <folder>', 'where its table, plots and rows go', 'runs/studies')
    .action((name: string | undefined, options) => runJob(options, async (context) => (await import('@tinyfusion/recipes/node')).studyJob(name, options, context), { resumes: true }));

  job(main, 'train', 'train the embedded models again: autoencoder, feature network, teacher')
    .option('--data <path>', 'folder of IDX files, e.g. that of Debian’s dataset-fashion-mnist; with --family also a pack (default with --family: the embedded images)')
    .addOption(new Option('--family <name>', 'train a teacher of this family alone: small, on latents of the embedded autoencoder, or on those of --data').choices(['DiT', 'SiT', 'MAR']))
    .option('--out <folder>', 'where checkpoints go; with --family the run’s folder, which the same command goes on with', 'runs/embedded')
    .option('--save-every <n>', 'with --family: steps between saves', count, 100)
    .option('--keep-every <n>', 'with --family: saves at multiples of this are kept beside the last three', count)
    .option('--sample-every <n>', 'with --family: steps between pictures of samples, a multiple of --save-every', count)
    .option('--vae <file>', 'with --sample-every: autoencoder of the pictures, where the latents are not the embedded one’s')
    .option('--config <file>', 'with --family: JSON of what differs from the embedded teacher, e.g. {"hiddenSize": 384, "numHeads": 6}')
    .option('--batch <n>', 'with --family: samples a step', count, 64)
    .option('--parts <n>', 'with --family: compute a batch in so many parts, for less memory at a time (default: 1, more where it does not fit)', count)
    .option('--recompute', 'with --family: compute blocks a second time for their gradients, for less memory and one more forward pass of them')
    .option('--lr <x>', 'with --family: peak learning rate', rate, 1e-3)
    .option('--steps <n>', 'steps of the teacher', count, 8500)
    .option('--seed <n>', 'with --family: random seed', seed, 0)
    .option('--fast', 'a few steps of everything, to see that it works')
    .action((options) =>
      runJob(options, async (context) => {
        const { trainJob, trainTeacherJob } = await import('@tinyfusion/recipes/node');
        if (options.family !== undefined) return trainTeacherJob(options, context);
        if (options.data === undefined) throw new ArgumentError('--data', undefined, 'a folder of IDX files (or --family, which needs none)');
        return trainJob(options, context);
      }, { shared: true, resumes: true }),
    );

  main.hook('preAction', (_, command) => {
    try {
      checkNeeded(command);
    } catch (error) {
      command.error(`error: ${(error as Error).message}`);
    }
  });
  return main;
}

/** A job on files, which computes nothing. */
function fileJob(main: Command, name: string, description: string): Command {
  return main.command(name).description(description).option('--debug', 'show the stack of an error');
}

/** A job with the options that all have. */
function job(main: Command, name: string, description: string): Command {
  return main
    .command(name)
    .description(description)
    .addOption(new Option('--backend <name>', 'where to compute').choices(['auto', 'webgpu', 'wasm', 'cpu']).default('auto'))
    .option('--debug', 'show the stack of an error');
}
