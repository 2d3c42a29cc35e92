import { ArgumentError, type Rng } from '@tinyfusion/core';
import { type Float, axes, placeRows, takeRows } from '@tinyfusion/kernels';
import { Embedding, type HookOptions, type Init, LayerNorm, Linear, Module, normal, parameter, runBlocks, xavierUniform } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { ViTBlock } from '../transformer.js';
import { DiffusionHead } from './diffusion-head.js';
import type { TokenMask } from './token-mask.js';

/** The shape of a MAR. */
export interface MARConfig {
  /** Height and width of the latents; a multiple of `patchSize`. Upstream: image size over the autoencoder's stride. */
  inputSize: number;
  /** Upstream: 1. */
  patchSize: number;
  /** Channels of the latents: 16 for KL-16. */
  inChannels: number;
  encoderWidth: number;
  encoderDepth: number;
  encoderHeads: number;
  decoderWidth: number;
  decoderDepth: number;
  decoderHeads: number;
  /** Hidden width of the blocks' MLP over their width. Upstream: 4. */
  mlpRatio: number;
  /** Added to variances in the blocks' norms. Upstream: 1e-6. */
  normEpsilon: number;
  numClasses: number;
  /** Copies of the class in front of the encoder's tokens. Upstream: 64. */
  bufferSize: number;
  /** Residual blocks of the diffusion head. */
  headDepth: number;
  /** Width of the diffusion head. */
  headWidth: number;
  /** Training: the smallest part of the tokens that is masked. Upstream: 0.7. */
  maskRatioMin: number;
  /** Training: probability with which a label is replaced by "no class". Upstream: 0.1. */
  labelDropProb: number;
  /** Training: dropout of attention's weights. Upstream: 0.1. */
  attentionDropout: number;
  /** Training: dropout of what attention and MLP put out. Upstream: 0.1. */
  projectionDropout: number;
  /** Training: times and noises drawn for each token. Upstream: 4. */
  diffusionBatchMul: number;
}

/** Options of {@link MAR.encode} and {@link MAR.decode}. */
export interface MARForwardOptions extends HookOptions {
  /** Switches dropout on and draws it. Default: none, as in evaluation. */
  dropout?: Rng | undefined;
}

/**
 * Masked autoregressive model (Li et al. 2024): a masked autoencoder says of each masked token what the known ones make
 * of it, and a small {@link DiffusionHead} draws the token from that. Blocks are plain ViT blocks, in two stacks:
 * `encoder_blocks` and `decoder_blocks`. Names are those of the reference's state dict. Upstream: `MAR` in mar's `mar.py`.
 */
export class MAR extends Module {
  readonly config: Readonly<MARConfig>;
  readonly class_emb: Embedding;
  /** The condition that stands for "no class", `[1, D]`. */
  readonly fake_latent: tf.Variable;
  readonly z_proj: Linear;
  readonly z_proj_ln: LayerNorm;
  readonly encoder_pos_embed_learned: tf.Variable;
  /** Pruning removes entries. */
  readonly encoder_blocks: ViTBlock[];
  readonly encoder_norm: LayerNorm;
  readonly decoder_embed: Linear;
  readonly mask_token: tf.Variable;
  readonly decoder_pos_embed_learned: tf.Variable;
  /** Pruning removes entries. */
  readonly decoder_blocks: ViTBlock[];
  readonly decoder_norm: LayerNorm;
  readonly diffusion_pos_embed_learned: tf.Variable;
  readonly diffloss: DiffusionLoss;

  /**
   * @param options `init`: an `Rng` draws the reference's initial weights, `'zeros'` leaves them to a checkpoint
   * @throws ArgumentError where the configuration does not fit together
   */
  constructor(config: MARConfig, { init }: { init: Init }) {
    super();
    checkMARConfig(config);
    const { encoderWidth, encoderDepth, encoderHeads, decoderWidth, decoderDepth, decoderHeads, mlpRatio, bufferSize, headDepth, headWidth, normEpsilon: epsilon } = config;
    this.config = { ...config };
    const rates = { attention: config.attentionDropout, projection: config.projectionDropout };
    const small = normal(0.02);
    this.class_emb = new Embedding(config.numClasses, encoderWidth, { init, weightInit: small });
    this.fake_latent = parameter([1, encoderWidth], small, init);
    this.z_proj = new Linear(this.tokenChannels, encoderWidth, { init, weightInit: xavierUniform });
    this.z_proj_ln = new LayerNorm(encoderWidth, { init, epsilon: 1e-6 });
    this.encoder_pos_embed_learned = parameter([1, this.tokens + bufferSize, encoderWidth], small, init);
    this.encoder_blocks = Array.from({ length: encoderDepth }, () => new ViTBlock(encoderWidth, encoderHeads, { mlpRatio, epsilon, rates, init }));
    this.encoder_norm = new LayerNorm(encoderWidth, { init, epsilon });
    this.decoder_embed = new Linear(encoderWidth, decoderWidth, { init, weightInit: xavierUniform });
    this.mask_token = parameter([1, 1, decoderWidth], small, init);
    this.decoder_pos_embed_learned = parameter([1, this.tokens + bufferSize, decoderWidth], small, init);
    this.decoder_blocks = Array.from({ length: decoderDepth }, () => new ViTBlock(decoderWidth, decoderHeads, { mlpRatio, epsilon, rates, init }));
    this.decoder_norm = new LayerNorm(decoderWidth, { init, epsilon });
    this.diffusion_pos_embed_learned = parameter([1, this.tokens, decoderWidth], small, init);
    this.diffloss = new DiffusionLoss(new DiffusionHead({ channels: this.tokenChannels, width: headWidth, depth: headDepth, conditionWidth: decoderWidth }, init));
  }

  /** Tokens L of an image. */
  get tokens(): number {
    return (this.config.inputSize / this.config.patchSize) ** 2;
  }

  /** Values C of a token. */
  get tokenChannels(): number {
    return this.config.inChannels * this.config.patchSize ** 2;
  }

  /** `[N, H, W, C]` → `[N, L, p·p·C]`; a token is (channel, row, column), channel slowest, unlike DiT's. */
  patchify(x: Float<'N H W C'>): Float<'N L P'> {
    const { inputSize, patchSize: p, inChannels } = this.config;
    const { N } = axes('MAR.patchify: x', x, 'N H W C', { H: inputSize, W: inputSize, C: inChannels });
    const grid = inputSize / p;
    return tf.tidy(() => {
      const rows = tf.transpose(tf.reshape(x, [N * grid, p, grid, p * inChannels]), [0, 2, 1, 3]); // [N·grid, grid, p, p·C]
      const tokens = tf.transpose(tf.reshape(rows, [N * grid * grid, p * p, inChannels]), [0, 2, 1]);
      return tf.reshape(tokens, [N, grid * grid, this.tokenChannels]);
    });
  }

  /** The inverse of {@link patchify}. */
  unpatchify(tokens: Float<'N L P'>): Float<'N H W C'> {
    const { inputSize, patchSize: p, inChannels } = this.config;
    const { N } = axes('MAR.unpatchify: tokens', tokens, 'N L P', { L: this.tokens, P: this.tokenChannels });
    const grid = inputSize / p;
    return tf.tidy(() => {
      const values = tf.transpose(tf.reshape(tokens, [N * grid * grid, inChannels, p * p]), [0, 2, 1]);
      const rows = tf.transpose(tf.reshape(values, [N * grid, grid, p, p * inChannels]), [0, 2, 1, 3]);
      return tf.reshape(rows, [N, inputSize, inputSize, inChannels]);
    });
  }

  /**
   * The conditions of classes. @param y `[N]` int32 in [0, numClasses) @param drop `[N]`, 1 where there is to be no class
   * @returns `[N, D]`
   */
  classEmbedding(y: tf.Tensor1D, drop?: tf.Tensor1D): Float<'N D'> {
    return tf.tidy(() => {
      const classes = this.class_emb.forward(y);
      if (drop === undefined) return classes;
      const none = tf.expandDims(drop, 1);
      return tf.add(tf.mul(none, this.fake_latent), tf.mul(tf.sub(1, none), classes)) as tf.Tensor2D;
    });
  }

  /**
   * The encoder, on the tokens that are not masked. Upstream: `forward_mae_encoder`.
   *
   * @param tokens `[N, L, C]`; what masked ones hold does not matter
   * @param condition `[N, D]`
   * @returns `[N, buffer + kept, D]`, kept tokens in raster order after the buffer
   */
  encode(tokens: Float<'N L C'>, mask: TokenMask, condition: Float<'N D'>, { dropout, ...hooks }: MARForwardOptions = {}): Float<'N T D'> {
    const { encoderWidth: D, bufferSize } = this.config;
    const { N, L } = axes('MAR.encode: tokens', tokens, 'N L C', { L: this.tokens, C: this.tokenChannels });
    axes('MAR.encode: condition', condition, 'N D', { N, D });
    this.checkMask('MAR.encode: mask', mask, N);
    return tf.tidy(() => {
      const buffer = tf.broadcastTo(tf.expandDims(condition, 1), [N, bufferSize, D]);
      const all = tf.add(tf.concat([buffer, this.z_proj.forward(tokens)], 1), this.encoder_pos_embed_learned) as tf.Tensor3D;
      const kept = takeRows(tf.reshape(all, [N * (bufferSize + L), D]), mask.keptRows(bufferSize));
      // upstream normalises before it drops; row by row it is the same
      const x = this.z_proj_ln.forward(tf.reshape(kept, [N, -1, D]) as tf.Tensor3D);
      return this.encoder_norm.forward(runBlocks('encoder_blocks', this.encoder_blocks, x, (block, h, around) => block.forward(h, { around, dropout }), hooks));
    });
  }

  /**
   * The decoder: a condition for each token. Upstream: `forward_mae_decoder`.
   * @param x `[N, buffer + kept, D]` from {@link encode} with the same mask
   * @returns `[N, L, D']`
   */
  decode(x: Float<'N T D'>, mask: TokenMask, { dropout, ...hooks }: MARForwardOptions = {}): Float<'N L Z'> {
    const { encoderWidth, decoderWidth: D, bufferSize } = this.config;
    const kept = bufferSize + mask.length - mask.maskedCount;
    const { N } = axes('MAR.decode: x', x, 'N T D', { T: kept, D: encoderWidth });
    this.checkMask('MAR.decode: mask', mask, N);
    const length = bufferSize + mask.length;
    return tf.tidy(() => {
      const rows = tf.reshape(this.decoder_embed.forward(x), [N * kept, D]) as tf.Tensor2D;
      const all = placeRows(rows, tf.reshape(this.mask_token, [1, D]), mask.keptRows(bufferSize), N * length);
      const h = tf.add(tf.reshape(all, [N, length, D]), this.decoder_pos_embed_learned) as tf.Tensor3D;
      const out = this.decoder_norm.forward(runBlocks('decoder_blocks', this.decoder_blocks, h, (block, z, around) => block.forward(z, { around, dropout }), hooks));
      return tf.add(tf.slice(out, [0, bufferSize, 0], [-1, -1, -1]), this.diffusion_pos_embed_learned);
    });
  }

  /** Rows of the masked tokens of `x` `[N, L, D]`, `diffusionBatchMul` times over: `[rows, D]`. */
  maskedRows(x: Float<'N L D'>, mask: TokenMask): Float<'R D'> {
    const { N, L, D } = axes('MAR.maskedRows: x', x, 'N L D');
    this.checkMask('MAR.maskedRows: mask', mask, N);
    return tf.tidy(() => tf.tile(takeRows(tf.reshape(x, [N * L, D]), mask.maskedRows()), [this.config.diffusionBatchMul, 1]));
  }

  /**
   * What the transformer says of each masked token, as the head needs it in training.
   * @param latents `[N, H, W, C]` @param y `[N]` int32 labels @param draws the mask, and 1 where a class is dropped
   * @returns `[rows, D']`, in the order of {@link maskedRows}
   */
  headConditions(latents: Float<'N H W C'>, y: tf.Tensor1D, { mask, drop }: { mask: TokenMask; drop: Float32Array }, options: MARForwardOptions = {}): Float<'R Z'> {
    return tf.tidy(() => {
      const known = this.encode(this.patchify(latents), mask, this.classEmbedding(y, tf.tensor1d(drop)), options);
      return this.maskedRows(this.decode(known, mask, options), mask);
    });
  }

  private checkMask(argument: string, mask: TokenMask, samples: number): void {
    if (mask.samples !== samples || mask.length !== this.tokens) throw new ArgumentError(argument, `of ${mask.samples} samples × ${mask.length} tokens`, `${samples} samples × ${this.tokens} tokens`);
  }
}

/** Holds the head under the reference's name, `diffloss.net`. */
export class DiffusionLoss extends Module {
  constructor(readonly net: DiffusionHead) {
    super();
  }
}

/** @throws ArgumentError where a configuration does not fit together */
export function checkMARConfig(config: MARConfig): void {
  for (const name of ['inputSize', 'patchSize', 'inChannels', 'encoderWidth', 'encoderDepth', 'encoderHeads', 'decoderWidth', 'decoderDepth', 'decoderHeads', 'numClasses', 'bufferSize', 'headDepth', 'headWidth', 'diffusionBatchMul'] as const) {
    if (!Number.isInteger(config[name]) || config[name] < 1) throw new ArgumentError(`MARConfig.${name}`, config[name], 'a positive integer');
  }
  if (config.inputSize % config.patchSize !== 0) throw new ArgumentError('MARConfig.patchSize', config.patchSize, `a divisor of inputSize ${config.inputSize}`);
  for (const [heads, width] of [['encoderHeads', 'encoderWidth'], ['decoderHeads', 'decoderWidth']] as const) {
    if (config[width] % config[heads] !== 0) throw new ArgumentError(`MARConfig.${heads}`, config[heads], `a divisor of ${width} ${config[width]}`);
  }
  if (!(config.mlpRatio > 0)) throw new ArgumentError('MARConfig.mlpRatio', config.mlpRatio, 'more than 0');
  if (!(config.normEpsilon > 0)) throw new ArgumentError('MARConfig.normEpsilon', config.normEpsilon, 'more than 0');
  if (!(config.maskRatioMin > 0 && config.maskRatioMin < 1)) throw new ArgumentError('MARConfig.maskRatioMin', config.maskRatioMin, 'a ratio in (0, 1)');
  for (const name of ['labelDropProb', 'attentionDropout', 'projectionDropout'] as const) {
    if (!(config[name] >= 0 && config[name] < 1)) throw new ArgumentError(`MARConfig.${name}`, config[name], 'a probability in [0, 1)');
  }
}
