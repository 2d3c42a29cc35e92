import { ArgumentError, ShapeError } from '@tinyfusion/core';
import { type Float, axes, gatedAdd, modulatedNorm, silu } from '@tinyfusion/kernels';
import { type BranchHook, Conv2d, Embedding, type HookOptions, type Init, Linear, Module, normal, plainBranch, runBlocks, xavierUniform, zeros } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { positionEmbedding, timestepEmbedding } from './embeddings.js';
import { Attention, Mlp } from './transformer.js';

/** The shape of a DiT. */
export interface DiTConfig {
  /** Height and width of the input in pixels or latents; a multiple of `patchSize`. */
  inputSize: number;
  patchSize: number;
  /** Channels of the input: 4 for Stable Diffusion's latents. */
  inChannels: number;
  /** Width D; a multiple of 4 and of `numHeads`. */
  hiddenSize: number;
  /** Number of blocks. */
  depth: number;
  numHeads: number;
  /** Hidden width of the MLP over D. Upstream: 4. */
  mlpRatio: number;
  /** Probability with which training replaces a label by the null class. Upstream: 0.1. 0 leaves out the null class. */
  classDropoutProb: number;
  numClasses: number;
  /** Whether the output has a second half of channels for the variance. Upstream: true. */
  learnSigma: boolean;
  /** Blocks of which pruning has left a part, by index. Default: all are whole. */
  thinned?: Readonly<Record<number, BlockPart>> | undefined;
}

/** What is left of a block: one of its branches, or a linear layer that stands for it and blocks after it. */
export type BlockPart = 'attention' | 'mlp' | 'linear';

/** Options of {@link DiT.forward}. */
export interface DiTForwardOptions extends HookOptions {
  /** `[N]`, not 0 where the label is to be replaced by the null class (label dropout). Default: none. */
  drop?: tf.Tensor1D | undefined;
}

/**
 * Diffusion transformer (Peebles & Xie 2023): patches → blocks conditioned by adaLN-Zero → patches. Names are those of
 * the reference's state dict, so its checkpoints load as they are. Upstream: `DiT` in DiT's `models.py`.
 */
export class DiT extends Module {
  readonly config: Readonly<DiTConfig>;
  readonly x_embedder: PatchEmbed;
  readonly t_embedder: TimestepEmbedder;
  readonly y_embedder: LabelEmbedder;
  /** Fixed, but part of the checkpoint: `[1, T, D]`. */
  readonly pos_embed: tf.Variable;
  /** Pruning removes entries. */
  readonly blocks: (DiTBlock | LinearBlock)[];
  readonly final_layer: FinalLayer;

  /**
   * @param options `init`: an `Rng` draws the reference's initial weights (adaLN-Zero: every block starts as the
   * identity), `'zeros'` leaves them to a checkpoint
   * @throws ArgumentError where the configuration does not fit together
   */
  constructor(config: DiTConfig, { init }: { init: Init }) {
    super();
    checkDiTConfig(config);
    const { inputSize, patchSize, inChannels, hiddenSize, depth, numHeads, mlpRatio, learnSigma, thinned } = config;
    this.config = { ...config };
    const grid = inputSize / patchSize;
    this.x_embedder = new PatchEmbed(patchSize, inChannels, hiddenSize, init);
    this.t_embedder = new TimestepEmbedder(hiddenSize, init);
    this.y_embedder = new LabelEmbedder(config, init);
    this.pos_embed = tf.tidy(() => tf.variable(tf.tensor(positionEmbedding(hiddenSize, grid), [1, grid * grid, hiddenSize]), false));
    this.blocks = Array.from({ length: depth }, (_, i) => {
      const part = thinned?.[i];
      return part === 'linear' ? new LinearBlock(hiddenSize, init) : new DiTBlock(hiddenSize, numHeads, mlpRatio, init, part);
    });
    this.final_layer = new FinalLayer(hiddenSize, patchSize, inChannels * (learnSigma ? 2 : 1), init);
  }

  /** Channels of the output. */
  get outChannels(): number {
    return this.config.inChannels * (this.config.learnSigma ? 2 : 1);
  }

  /**
   * The label that stands for "no class", which guidance needs.
   * @throws ArgumentError where the model was built without one (`classDropoutProb` 0)
   */
  get nullClass(): number {
    if (this.config.classDropoutProb === 0) throw new ArgumentError('DiTConfig.classDropoutProb', 0, 'more than 0: without label dropout there is no null class');
    return this.config.numClasses;
  }

  /**
   * The model's prediction for noisy images.
   *
   * @param x `[N, H, W, C]` noisy images or latents
   * @param t `[N]` timesteps in [0, 1000), fractions allowed
   * @param y `[N]` int32 labels in [0, numClasses], the last being the null class
   * @returns `[N, H, W, outChannels]`
   * @throws ShapeError where a tensor does not fit the configuration; ArgumentError where a label is out of range (not on
   * WebGPU, see `embedding`)
   */
  forward(x: Float<'N H W C'>, t: tf.Tensor1D, y: tf.Tensor1D, { drop, hook, branchHook }: DiTForwardOptions = {}): Float<'N H W C'> {
    const { inputSize, patchSize, inChannels } = this.config;
    const { N } = axes('DiT.forward: x', x, 'N H W C', { H: inputSize, W: inputSize, C: inChannels });
    if (N === 0) throw new ShapeError('DiT.forward: x', x.shape, `N from 1, H=${inputSize}, W=${inputSize}, C=${inChannels}`);
    axes('DiT.forward: t', t, 'N', { N });
    axes('DiT.forward: y', y, 'N', { N });
    return tf.tidy(() => {
      const tokens = tf.add(this.x_embedder.forward(x), this.pos_embed) as tf.Tensor3D; //            [N, T, D]
      const c = tf.add(this.t_embedder.forward(t), this.y_embedder.forward(y, drop)) as tf.Tensor2D; // [N, D]
      const out = runBlocks('blocks', this.blocks, tokens, (block, h, around) => block.forward(h, c, around), { hook, branchHook });
      return unpatchify(this.final_layer.forward(out, c), patchSize, this.config.inChannels * (this.config.learnSigma ? 2 : 1));
    });
  }
}

/** DiT block with adaLN-Zero conditioning (Peebles & Xie 2023, figure 3). */
export class DiTBlock extends Module {
  /** Absent where only the MLP is left. */
  readonly attn?: Attention;
  /** Absent where only attention is left. */
  readonly mlp?: Mlp;
  /** Of both branches, also where one is gone. */
  readonly adaLN_modulation: readonly [typeof silu, Linear];

  /** @param part the branch that is left. Default: both */
  constructor(hiddenSize: number, numHeads: number, mlpRatio: number, init: Init, part?: 'attention' | 'mlp') {
    super();
    if (part !== 'mlp') this.attn = new Attention(hiddenSize, numHeads, init);
    if (part !== 'attention') this.mlp = new Mlp(hiddenSize, Math.floor(hiddenSize * mlpRatio), { init });
    this.adaLN_modulation = [silu, new Linear(hiddenSize, 6 * hiddenSize, { init, weightInit: zeros })];
  }

  /** @param x `[N, T, D]` @param c `[N, D]` @returns `[N, T, D]` */
  forward(x: Float<'N T D'>, c: Float<'N D'>, around: BranchHook = plainBranch): Float<'N T D'> {
    return tf.tidy(() => {
      const [activation, projection] = this.adaLN_modulation;
      const [shift1, scale1, gate1, shift2, scale2, gate2] = tf.split(projection.forward(activation(c)), 6, 1) as Six<tf.Tensor2D>; // six of [N, D]
      const { attn, mlp } = this;
      const h = attn === undefined ? x : around('attention', x, (z) => gatedAdd(z, gate1, attn.forward(modulatedNorm(z, shift1, scale1))));
      return mlp === undefined ? h : around('mlp', h, (z) => gatedAdd(z, gate2, mlp.forward(modulatedNorm(z, shift2, scale2))));
    });
  }
}

/** A linear layer in the place of blocks: y = x + (x Wᵀ + b), without a condition. Its first values are zeros: the identity. */
export class LinearBlock extends Module {
  readonly linear: Linear;

  constructor(hiddenSize: number, init: Init) {
    super();
    this.linear = new Linear(hiddenSize, hiddenSize, { init, weightInit: zeros });
  }

  /** @param x `[N, T, D]` @returns `[N, T, D]` */
  forward(x: Float<'N T D'>): Float<'N T D'> {
    return tf.tidy(() => tf.add(x, this.linear.forward(x)) as tf.Tensor3D);
  }
}

type Six<T> = [T, T, T, T, T, T];

/** Cuts images into patches and projects them: a convolution whose stride is its size. */
export class PatchEmbed extends Module {
  readonly proj: Conv2d;

  constructor(patchSize: number, inChannels: number, hiddenSize: number, init: Init) {
    super();
    this.proj = new Conv2d(inChannels, hiddenSize, patchSize, { init, stride: patchSize, weightInit: xavierUniform });
  }

  /** @param x `[N, H, W, C]` @returns `[N, T, D]`, tokens in raster order */
  forward(x: Float<'N H W C'>): Float<'N T D'> {
    const y = this.proj.forward(x);
    const [n, h, w, d] = y.shape;
    return tf.reshape(y, [n, h * w, d]);
  }
}

/** Embeds timesteps: 256 sinusoids, then an MLP. */
export class TimestepEmbedder extends Module {
  readonly mlp: readonly [Linear, typeof silu, Linear];

  constructor(hiddenSize: number, init: Init) {
    super();
    const weightInit = normal(0.02);
    this.mlp = [new Linear(FREQUENCIES, hiddenSize, { init, weightInit }), silu, new Linear(hiddenSize, hiddenSize, { init, weightInit })];
  }

  /** @param t `[N]` @returns `[N, D]` */
  forward(t: tf.Tensor1D): Float<'N D'> {
    const [first, activation, second] = this.mlp;
    return second.forward(activation(first.forward(timestepEmbedding(t, FREQUENCIES))));
  }
}

const FREQUENCIES = 256;

/** Embeds labels; the row after the last class is the null class, where there is label dropout. */
export class LabelEmbedder extends Module {
  readonly embedding_table: Embedding;
  readonly #numClasses: number;

  constructor({ numClasses, classDropoutProb, hiddenSize }: Pick<DiTConfig, 'numClasses' | 'classDropoutProb' | 'hiddenSize'>, init: Init) {
    super();
    this.embedding_table = new Embedding(numClasses + (classDropoutProb > 0 ? 1 : 0), hiddenSize, { init, weightInit: normal(0.02) });
    this.#numClasses = numClasses;
  }

  /** @param y `[N]` int32 @param drop `[N]`, not 0 where the null class takes the label's place @returns `[N, D]` */
  forward(y: tf.Tensor1D, drop?: tf.Tensor1D): Float<'N D'> {
    const labels = drop === undefined ? y : (tf.where(tf.cast(drop, 'bool'), tf.fill(y.shape, this.#numClasses, 'int32'), y) as tf.Tensor1D);
    return this.embedding_table.forward(labels);
  }
}

/** adaLN, then a projection of each token to its patch. */
export class FinalLayer extends Module {
  readonly linear: Linear;
  readonly adaLN_modulation: readonly [typeof silu, Linear];

  constructor(hiddenSize: number, patchSize: number, outChannels: number, init: Init) {
    super();
    this.linear = new Linear(hiddenSize, patchSize * patchSize * outChannels, { init, weightInit: zeros });
    this.adaLN_modulation = [silu, new Linear(hiddenSize, 2 * hiddenSize, { init, weightInit: zeros })];
  }

  /** @param x `[N, T, D]` @param c `[N, D]` @returns `[N, T, patch² · channels]` */
  forward(x: Float<'N T D'>, c: Float<'N D'>): Float<'N T P'> {
    const [activation, projection] = this.adaLN_modulation;
    const [shift, scale] = tf.split(projection.forward(activation(c)), 2, 1) as [tf.Tensor2D, tf.Tensor2D];
    return this.linear.forward(modulatedNorm(x, shift, scale));
  }
}

/** `[N, T, p·p·C]` → `[N, H, W, C]`; a token is (row, column, channel), channel fastest. */
function unpatchify(tokens: tf.Tensor3D, patchSize: number, channels: number): tf.Tensor4D {
  const [n, t] = tokens.shape;
  const grid = Math.round(Math.sqrt(t));
  // rank 5 at most: rows of (grid) × (patch row), columns with their channels kept together
  const parts = tf.reshape(tokens, [n * grid, grid, patchSize, patchSize * channels]);
  return tf.reshape(tf.transpose(parts, [0, 2, 1, 3]), [n, grid * patchSize, grid * patchSize, channels]);
}

/** @throws ArgumentError where a configuration does not fit together */
export function checkDiTConfig(config: DiTConfig): void {
  for (const name of ['inputSize', 'patchSize', 'inChannels', 'hiddenSize', 'depth', 'numHeads', 'numClasses'] as const) {
    if (!Number.isInteger(config[name]) || config[name] < 1) throw new ArgumentError(`DiTConfig.${name}`, config[name], 'a positive integer');
  }
  const { inputSize, patchSize, hiddenSize, numHeads, classDropoutProb, mlpRatio } = config;
  if (inputSize % patchSize !== 0) throw new ArgumentError('DiTConfig.patchSize', patchSize, `a divisor of inputSize ${inputSize}`);
  if (hiddenSize % numHeads !== 0) throw new ArgumentError('DiTConfig.numHeads', numHeads, `a divisor of hiddenSize ${hiddenSize}`);
  if (hiddenSize % 4 !== 0) throw new ArgumentError('DiTConfig.hiddenSize', hiddenSize, 'a multiple of 4, which the position embedding needs');
  for (const [index, part] of Object.entries(config.thinned ?? {})) {
    if (!/^\d+$/.test(index) || Number(index) >= config.depth || !['attention', 'mlp', 'linear'].includes(part)) throw new ArgumentError('DiTConfig.thinned', `${index}: ${JSON.stringify(part)}`, `blocks below ${config.depth}, each 'attention', 'mlp' or 'linear'`);
  }
  if (!(mlpRatio > 0)) throw new ArgumentError('DiTConfig.mlpRatio', mlpRatio, 'more than 0');
  if (!(classDropoutProb >= 0 && classDropoutProb < 1)) throw new ArgumentError('DiTConfig.classDropoutProb', classDropoutProb, 'a probability in [0, 1)');
}
