import { ArgumentError, CheckpointError, ShapeError } from '@tinyfusion/core';
import { type Float, axes, silu } from '@tinyfusion/kernels';
import { Attention, Mlp, PatchEmbed } from '@tinyfusion/models';
import { type BranchHook, type HookOptions, type Init, LayerNorm, Linear, Module, loadState, normal, ones, parameter, plainBranch, runBlocks, zeros } from '@tinyfusion/nn';
import type { StateDict } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { interpolatePositions } from './interpolate-positions.js';

/** The shape of a {@link DinoV2}. */
export interface DinoV2Config {
  /** Width D, a multiple of `numHeads`. */
  hiddenSize: number;
  /** Number of blocks. */
  depth: number;
  numHeads: number;
  /** Height and width of a patch in pixels. Published: 14. */
  patchSize: number;
  /** Height and width of the images that its position embeddings are for, a multiple of `patchSize`. Published: 518. */
  trainingSize: number;
  /** `'mlp'` with GELU, or `'swiglu'` as in the giant. */
  feedForward: 'mlp' | 'swiglu';
}

/** The published networks without registers, by the name in `dinov2_<name>_pretrain.pth`. */
export const dinoV2Presets = {
  vits14: { hiddenSize: 384, depth: 12, numHeads: 6, patchSize: 14, trainingSize: 518, feedForward: 'mlp' },
  vitb14: { hiddenSize: 768, depth: 12, numHeads: 12, patchSize: 14, trainingSize: 518, feedForward: 'mlp' },
  vitl14: { hiddenSize: 1024, depth: 24, numHeads: 16, patchSize: 14, trainingSize: 518, feedForward: 'mlp' },
  vitg14: { hiddenSize: 1536, depth: 40, numHeads: 24, patchSize: 14, trainingSize: 518, feedForward: 'swiglu' },
} as const satisfies Record<string, DinoV2Config>;

/**
 * The image encoder of DINOv2 (Oquab et al. 2023): a vision transformer with a scale on each branch. Names are those of
 * the published state dicts. Upstream: `DinoVisionTransformer`.
 */
export class DinoV2 extends Module {
  readonly config: Readonly<DinoV2Config>;
  readonly cls_token: tf.Variable;
  /** `[1, 1 + g², D]` for the grid of `trainingSize`. */
  readonly pos_embed: tf.Variable;
  /** Stands for hidden patches in pre-training; unused here, but part of the checkpoint. */
  readonly mask_token: tf.Variable;
  readonly patch_embed: PatchEmbed;
  readonly blocks: DinoV2Block[];
  readonly norm: LayerNorm;

  /** @throws ArgumentError where the configuration does not fit together */
  constructor(config: DinoV2Config, { init }: { init: Init }) {
    super();
    const { hiddenSize, depth, numHeads, patchSize, trainingSize } = config;
    if (hiddenSize % numHeads !== 0) throw new ArgumentError('DinoV2Config.hiddenSize', hiddenSize, `a multiple of numHeads, ${numHeads}`);
    if (trainingSize % patchSize !== 0) throw new ArgumentError('DinoV2Config.trainingSize', trainingSize, `a multiple of patchSize, ${patchSize}`);
    this.config = { ...config };
    this.cls_token = parameter([1, 1, hiddenSize], normal(1e-6), init);
    this.pos_embed = parameter([1, 1 + (trainingSize / patchSize) ** 2, hiddenSize], normal(0.02), init);
    this.mask_token = parameter([1, hiddenSize], zeros, init);
    this.patch_embed = new PatchEmbed(patchSize, 3, hiddenSize, init);
    this.blocks = Array.from({ length: depth }, () => new DinoV2Block(config, init));
    this.norm = new LayerNorm(hiddenSize, { init, epsilon: EPSILON });
  }

  /**
   * The normalised class token.
   *
   * @param images `[N, H, W, 3]`, normalised by ImageNet's mean and deviation; H and W multiples of `patchSize`
   * @returns `[N, D]`
   * @throws ShapeError where H or W is no multiple
   */
  forward(images: Float<'N H W C'>, hooks: HookOptions = {}): Float<'N D'> {
    const { patchSize, trainingSize, hiddenSize } = this.config;
    const { N, H, W } = axes('DinoV2.forward: images', images, 'N H W C', { C: 3 });
    if (H % patchSize !== 0 || W % patchSize !== 0) throw new ShapeError('DinoV2.forward: images', images.shape, `N, H and W multiples of ${patchSize}, C=3`);
    return tf.tidy(() => {
      const patches = this.patch_embed.forward(images); //                                              [N, T, D]
      const positions = interpolatePositions(this.pos_embed as tf.Tensor as tf.Tensor3D, { grid: trainingSize / patchSize, rows: H / patchSize, columns: W / patchSize });
      const tokens = tf.add(tf.concat([tf.tile(this.cls_token, [N, 1, 1]), patches], 1), positions) as tf.Tensor3D; // [N, 1 + T, D]
      const out = runBlocks('blocks', this.blocks, tokens, (block, x, around) => block.forward(x, around), hooks);
      return this.norm.forward(tf.reshape(tf.slice(out, [0, 0, 0], [-1, 1, -1]), [N, hiddenSize]) as tf.Tensor2D);
    });
  }
}

const EPSILON = 1e-6;

/** Pre-norm block whose branches are scaled channel by channel (Touvron et al. 2021). */
export class DinoV2Block extends Module {
  readonly norm1: LayerNorm;
  readonly attn: Attention;
  readonly ls1: LayerScale;
  readonly norm2: LayerNorm;
  readonly mlp: Mlp | SwiGLU;
  readonly ls2: LayerScale;

  constructor({ hiddenSize, numHeads, feedForward }: DinoV2Config, init: Init) {
    super();
    this.norm1 = new LayerNorm(hiddenSize, { init, epsilon: EPSILON });
    this.attn = new Attention(hiddenSize, numHeads, init);
    this.ls1 = new LayerScale(hiddenSize, init);
    this.norm2 = new LayerNorm(hiddenSize, { init, epsilon: EPSILON });
    this.mlp = feedForward === 'mlp' ? new Mlp(hiddenSize, 4 * hiddenSize, { init, gelu: 'exact' }) : new SwiGLU(hiddenSize, 8 * Math.ceil(Math.floor((4 * hiddenSize * 2) / 3) / 8), init);
    this.ls2 = new LayerScale(hiddenSize, init);
  }

  /** @param x `[N, T, D]` @returns `[N, T, D]` */
  forward(x: Float<'N T D'>, around: BranchHook = plainBranch): Float<'N T D'> {
    return tf.tidy(() => {
      const h = around('attention', x, (x) => tf.add(x, this.ls1.forward(this.attn.forward(this.norm1.forward(x)))));
      return around('mlp', h, (x) => tf.add(x, this.ls2.forward(this.mlp.forward(this.norm2.forward(x)))));
    });
  }
}

/** x · γ over the last axis; γ starts at 1. */
export class LayerScale extends Module {
  readonly gamma: tf.Variable;

  constructor(features: number, init: Init) {
    super();
    this.gamma = parameter([features], ones, init);
  }

  /** @param x `[N, T, D]` */
  forward(x: Float<'N T D'>): Float<'N T D'> {
    return tf.mul(x, this.gamma);
  }
}

/** w₃(silu(a) · b) with (a, b) = w₁₂(x) (Shazeer 2020). */
export class SwiGLU extends Module {
  readonly w12: Linear;
  readonly w3: Linear;

  constructor(features: number, hiddenFeatures: number, init: Init) {
    super();
    this.w12 = new Linear(features, 2 * hiddenFeatures, { init });
    this.w3 = new Linear(hiddenFeatures, features, { init });
  }

  /** @param x `[N, T, D]` */
  forward(x: Float<'N T D'>): Float<'N T D'> {
    const [a, b] = tf.split(this.w12.forward(x), 2, 2) as [tf.Tensor3D, tf.Tensor3D];
    return this.w3.forward(tf.mul(silu(a), b));
  }
}

/**
 * A DINOv2 from its state dict, e.g. `weightsOf(await readCheckpoint(source))` of `dinov2_vitl14_pretrain.pth`.
 *
 * @param config the network's shape. Default: the preset of the checkpoint's width
 * @throws CheckpointError where the checkpoint is of another network
 */
export async function loadDinoV2(state: StateDict, config: DinoV2Config = presetOf(state)): Promise<DinoV2> {
  const net = new DinoV2(config, { init: 'zeros' });
  try {
    await loadState(net, state);
  } catch (error) {
    net.dispose();
    throw error;
  }
  return net;
}

function presetOf(state: StateDict): DinoV2Config {
  const shape = state.tensors.get('cls_token')?.shape;
  const preset = Object.values(dinoV2Presets).find((p) => p.hiddenSize === shape?.at(-1));
  if (preset === undefined) throw new CheckpointError(`the checkpoint has ${shape === undefined ? 'no cls_token' : `[${shape.join(', ')}] for cls_token`}, expected a published DINOv2 of width ${Object.values(dinoV2Presets).map((p) => p.hiddenSize).join(', ')}; give the configuration of another one`);
  return preset;
}
